// Copies from global to shared memory that run while a thread goes on. Part of device.cuh.
#pragma once

// ---- asynchronous copies from global to shared memory, BYTES (4, 8 or 16) at a time

// Copies to an address aligned to BYTES; where `valid` is false writes zeros and reads nothing. Nothing may be read
// there before wait_for_copies and, by other threads, a barrier.
template <int BYTES>
DEVICE void copy_async(void* to, const void* from, bool valid = true) {
#ifdef OPBENCH_ON_CPU
  on_cpu::copy_async(to, from, BYTES, valid ? BYTES : 0);
#elif __CUDA_ARCH__ >= 800
  const unsigned count = valid ? BYTES : 0;
  if constexpr (BYTES == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(count)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(to)), "l"(from), "n"(BYTES),
                 "r"(count)
                 : "memory");
#else
  Words<BYTES> words = zero_vector<float, BYTES / 4>();
  if (valid) words = *static_cast<const Words<BYTES>*>(from);
  *static_cast<Words<BYTES>*>(to) = words;
#endif
}

// Closes a group of the copies issued so far.
DEVICE void commit_copies() {
#ifdef OPBENCH_ON_CPU
  on_cpu::commit_async();
#elif __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most PENDING of the groups this thread closed are under way.
template <int PENDING>
DEVICE void wait_for_copies() {
#ifdef OPBENCH_ON_CPU
  on_cpu::wait_async(PENDING);
#elif __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#endif
}
