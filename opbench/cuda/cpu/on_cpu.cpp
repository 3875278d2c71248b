// The scheduler behind on_cpu.hpp: one block at a time, one fibre for each of its threads.
#include "on_cpu.hpp"

#include <stdio.h>
#include <stdlib.h>

#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace {

constexpr size_t kStackBytes = 128 << 10;
constexpr int kWarp = 32;

#if defined(__x86_64__) && !defined(ON_CPU_UCONTEXT)
// Saves the callee-saved registers on the stack, swaps stacks, restores: what a call preserves and no more.
extern "C" void on_cpu_switch(void** save, void* load);
asm(R"(
.text
.globl on_cpu_switch
.type on_cpu_switch,@function
on_cpu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size on_cpu_switch,.-on_cpu_switch
)");

struct Context {
  void* stack_pointer = nullptr;
  void start(char* stack, void (*entry)()) {
    // 16-byte aligned as after a call: one return address, six registers.
    void** top = reinterpret_cast<void**>(stack + kStackBytes);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    stack_pointer = top;
  }
  static void swap(Context& from, Context& to) { on_cpu_switch(&from.stack_pointer, to.stack_pointer); }
};
#else
#include <ucontext.h>

struct Context {
  ucontext_t state;
  void start(char* stack, void (*entry)()) {
    getcontext(&state);
    state.uc_stack.ss_sp = stack;
    state.uc_stack.ss_size = kStackBytes;
    state.uc_link = nullptr;
    makecontext(&state, entry, 0);
  }
  static void swap(Context& from, Context& to) { swapcontext(&from.state, &to.state); }
};
#endif

enum class State { kReady, kAtBarrier, kAtWarp, kDone };

struct Copy {
  void* to;
  unsigned char data[16];
  size_t bytes;
  int group;
};

struct Fiber {
  Context context;
  char* stack = nullptr;
  State state = State::kDone;
  uint3 index = {0, 0, 0};
  int lane = 0, warp = 0;
  unsigned meetings = 0;  // exchanges of this warp so far; its parity picks the mailbox
  std::vector<Copy> copies;
  int groups = 0;
};

struct Warp {
  uint64_t values[2][kWarp];
  uint32_t words[2][16 * kWarp];
  int arrived = 0;
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  unsigned char* shared = nullptr;
  Context scheduler;
  Fiber* current = nullptr;
  int alive = 0, waiting = 0;
  int votes = 0, verdict = 0;
  void (*body)(const void*) = nullptr;
  const void* argument = nullptr;
  char* message = nullptr;
  bool failed = false;
  uint32_t seed;
};

Block block;

void to_scheduler() { Context::swap(block.current->context, block.scheduler); }

void release_barrier() {
  if (block.alive == 0 || block.waiting != block.alive) return;
  block.waiting = 0;
  block.verdict = block.votes;
  block.votes = 0;
  for (Fiber& fiber : block.fibers)
    if (fiber.state == State::kAtBarrier) fiber.state = State::kReady;
}

void meet_warp(unsigned mask) {
  Fiber& me = *block.current;
  Warp& warp = block.warps[me.warp];
  const int first = me.warp * kWarp, size = static_cast<int>(block.fibers.size());
  int needed = 0;
  for (int l = 0; l < kWarp && first + l < size; ++l) {
    if (!(mask >> l & 1)) on_cpu::fail("only primitives of a whole warp run on the CPU: the mask leaves lanes out");
    if (block.fibers[first + l].state == State::kDone) on_cpu::fail("a warp primitive waits for a lane that has returned");
    ++needed;
  }
  me.state = State::kAtWarp;
  if (++warp.arrived == needed) {
    warp.arrived = 0;
    for (int l = 0; l < kWarp && first + l < size; ++l) block.fibers[first + l].state = State::kReady;
  }
  // Even the last to arrive gives way, so that the order of the fibres decides who goes on first.
  to_scheduler();
}

void fiber_main() {
  block.body(block.argument);
  Fiber& me = *block.current;
  if (!me.copies.empty() && !block.failed) on_cpu::fail("a thread returns before waiting for its asynchronous copies");
  me.state = State::kDone;
  --block.alive;
  release_barrier();
  to_scheduler();
  abort();
}

int next(int position, int count, unsigned order) {
  if (order == 0) return position;
  if (order == 1) return count - 1 - position;
  block.seed = block.seed * 1664525u + 1013904223u;
  return static_cast<int>((block.seed >> 8) % static_cast<uint32_t>(count));
}

// Lets the threads of a warp go on that can; returns whether one could. A warp that goes on alone as far as it can is
// ahead of the others by all that no barrier of the block forbids.
bool run_warp(int warp, unsigned order, bool as_far_as_it_can) {
  const int first = warp * kWarp, size = min(kWarp, static_cast<int>(block.fibers.size()) - first);
  bool ran = false, again = true;
  while (again && !block.failed) {
    again = false;
    for (int i = 0; i < size && !block.failed; ++i) {
      Fiber& fiber = block.fibers[first + next(i, size, order)];
      if (fiber.state != State::kReady) continue;
      again = ran = true;
      block.current = &fiber;
      threadIdx = fiber.index;
      Context::swap(block.scheduler, fiber.context);
    }
    again &= as_far_as_it_can;
  }
  return ran;
}

// Why no thread of the block can go on.
const char* waiting_for() {
  for (size_t i = 0; i < block.fibers.size(); ++i)
    for (const Fiber& other : block.fibers)
      if (block.fibers[i].state == State::kAtWarp && other.state == State::kDone && other.warp == block.fibers[i].warp)
        return "a warp primitive waits for a lane that has returned";
  return "threads of a block wait at different barriers";
}

void run_block(const on_cpu::Request& request) {
  const int count = static_cast<int>(block.fibers.size()), warps = static_cast<int>(block.warps.size());
  // All ones are NaN in every floating type: shared memory read before it is written shows up in the result.
  memset(block.shared, 0xff, request.shared_bytes);
  block.alive = count;
  block.waiting = block.votes = 0;
  for (int i = 0; i < count; ++i) {
    Fiber& fiber = block.fibers[i];
    fiber.state = State::kReady;
    fiber.meetings = 0;
    fiber.groups = 0;
    fiber.copies.clear();
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(fiber.stack, kStackBytes);  // Whoever used it before never left its frames.
#endif
    fiber.context.start(fiber.stack, fiber_main);
  }
  for (Warp& warp : block.warps) warp.arrived = 0;
  while (block.alive && !block.failed) {
    const bool random = request.order == 2;
    bool ran = false;
    for (int i = 0; i < warps; ++i) ran |= run_warp(next(i, warps, request.order), request.order, !random);
    // A random round may have met only threads that wait.
    for (int warp = 0; warp < warps && !ran; ++warp) ran = run_warp(warp, 0, false);
    if (!ran && block.alive && !block.failed) {
      block.failed = true;
      snprintf(block.message, 256, "deadlock: %s (block %u,%u,%u)", waiting_for(), blockIdx.x, blockIdx.y, blockIdx.z);
    }
  }
}

}  // namespace

extern "C" void __syncthreads() {
  block.current->state = State::kAtBarrier;
  ++block.waiting;
  release_barrier();
  to_scheduler();
}

extern "C" int __syncthreads_or(int predicate) {
  block.votes |= predicate != 0;
  __syncthreads();
  return block.verdict;
}

extern "C" void __syncwarp(unsigned mask) { meet_warp(mask); }

namespace on_cpu {

void fail(const char* message) {
  block.failed = true;
  snprintf(block.message, 256, "%s (block %u,%u,%u thread %u,%u,%u)", message, blockIdx.x, blockIdx.y, blockIdx.z,
           threadIdx.x, threadIdx.y, threadIdx.z);
  to_scheduler();
  abort();
}

unsigned char* shared_memory() { return block.shared; }

int lane() { return block.current->lane; }

const uint64_t* exchange(unsigned mask, uint64_t mine) {
  Fiber& me = *block.current;
  uint64_t* mailbox = block.warps[me.warp].values[me.meetings++ & 1];
  mailbox[me.lane] = mine;
  meet_warp(mask);
  return mailbox;
}

const uint32_t* exchange_words(const uint32_t* mine, int words) {
  Fiber& me = *block.current;
  uint32_t* mailbox = block.warps[me.warp].words[me.meetings++ & 1];
  memcpy(mailbox + 16 * me.lane, mine, 4 * static_cast<size_t>(words));
  meet_warp(0xffffffffu);
  return mailbox;
}

void copy_async(void* to, const void* from, size_t bytes, size_t valid_bytes) {
  require_alignment(to, bytes);
  if (valid_bytes) require_alignment(from, bytes);
  Copy copy = {to, {}, bytes, block.current->groups};
  memcpy(copy.data, from, valid_bytes);
  memset(to, 0xff, bytes);  // Nobody may count on the data, old or new, before the wait.
  block.current->copies.push_back(copy);
}

void commit_async() { ++block.current->groups; }

void wait_async(int pending_groups) {
  Fiber& me = *block.current;
  size_t kept = 0;
  for (Copy& copy : me.copies) {
    if (copy.group < me.groups - pending_groups)
      memcpy(copy.to, copy.data, copy.bytes);
    else
      me.copies[kept++] = copy;
  }
  me.copies.resize(kept);
}

float from_half(uint16_t bits) {
  static const std::vector<float> table = [] {
    std::vector<float> values(1 << 16);
    for (uint32_t i = 0; i < values.size(); ++i) {
      const uint32_t sign = (i & 0x8000u) << 16, exponent = i >> 10 & 31, mantissa = i & 1023;
      const float tiny = ldexpf(static_cast<float>(mantissa), -24);
      const uint32_t large = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
      values[i] = exponent ? __uint_as_float(large) : sign ? -tiny : tiny;
    }
    return values;
  }();
  return table[bits];
}

uint16_t to_half(float value) {
  uint32_t bits = __float_as_uint(value);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return 0x7fff;
  if (bits >= 0x477ff000u) return sign | 0x7c00u;
  if (bits < 0x38800000u) return sign | static_cast<uint16_t>(nearbyintf(ldexpf(__uint_as_float(bits), 24)));
  return sign | static_cast<uint16_t>((bits + 0xfffu + (bits >> 13 & 1) - 0x38000000u) >> 13);
}

void load_matrices(unsigned* registers, int matrices, const void* row, bool transposed) {
  const int me = lane();
  const uint64_t* rows = exchange(0xffffffffu, reinterpret_cast<uint64_t>(row));
  const auto address = [&](int matrix, int r) {
    const char* start = reinterpret_cast<const char*>(rows[8 * matrix + r]);
    require_alignment(start, 16);
    return start;
  };
  for (int matrix = 0; matrix < matrices; ++matrix) {
    uint16_t pair[2];
    for (int i = 0; i < 2; ++i) {
      const int r = transposed ? 2 * (me % 4) + i : me / 4, c = transposed ? me / 4 : 2 * (me % 4) + i;
      memcpy(&pair[i], address(matrix, r) + 2 * c, 2);
    }
    registers[matrix] = pair[0] | static_cast<unsigned>(pair[1]) << 16;
  }
}

void multiply(float* d, const unsigned* a, const unsigned* b, int k, bool half) {
  uint32_t mine[6];
  const int a_words = k / 4, b_words = k / 8;
  memcpy(mine, a, 4 * static_cast<size_t>(a_words));
  memcpy(mine + a_words, b, 4 * static_cast<size_t>(b_words));
  const uint32_t* all = exchange_words(mine, a_words + b_words);
  const auto element = [&](int lane, int word, int position) {
    const uint16_t bits = static_cast<uint16_t>(all[16 * lane + word] >> (16 * (position & 1)));
    return half ? from_half(bits) : from_bfloat(bits);
  };
  const int me = lane();
  float rows[2][16], columns[2][16];
  for (int half_tile = 0; half_tile < 2; ++half_tile)
    for (int i = 0; i < k; ++i) {
      const int within = (i & 7) / 2;
      rows[half_tile][i] = element(me / 4 * 4 + within, half_tile + 2 * (i >> 3), i);
      columns[half_tile][i] = element((2 * (me % 4) + half_tile) * 4 + within, a_words + (i >> 3), i);
    }
  for (int e = 0; e < 4; ++e)
    for (int i = 0; i < k; ++i) d[e] += rows[e >> 1][i] * columns[e & 1][i];
}

int run(Request* request, void (*body)(const void*)) {
  gridDim = {request->grid[0], request->grid[1], request->grid[2]};
  blockDim = {request->block[0], request->block[1], request->block[2]};
  const unsigned count = blockDim.x * blockDim.y * blockDim.z;
  block.message = request->message;
  block.failed = false;
  block.seed = 1;  // A launch is the same whatever was launched before.
  block.body = body;
  block.argument = request->argument;
  block.fibers.resize(count);
  block.warps.resize((count + kWarp - 1) / kWarp);
  // Exactly as large as asked for: the address sanitizer then sees what is read or written beyond it.
  const size_t rounded = (request->shared_bytes + 127) / 128 * 128;
  block.shared = rounded ? static_cast<unsigned char*>(aligned_alloc(128, rounded)) : nullptr;
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(block.shared + request->shared_bytes, rounded - request->shared_bytes);
#endif
  for (unsigned i = 0; i < count; ++i) {
    Fiber& fiber = block.fibers[i];
    fiber.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
    fiber.lane = static_cast<int>(i % kWarp);
    fiber.warp = static_cast<int>(i / kWarp);
    fiber.stack = static_cast<char*>(aligned_alloc(64, kStackBytes));
  }
  const unsigned long long blocks = static_cast<unsigned long long>(gridDim.x) * gridDim.y * gridDim.z;
  for (unsigned long long i = 0; i < blocks && !block.failed; ++i) {
    const unsigned long long index = request->order == 1 ? blocks - 1 - i : i;
    blockIdx = {static_cast<unsigned>(index % gridDim.x), static_cast<unsigned>(index / gridDim.x % gridDim.y),
                static_cast<unsigned>(index / (static_cast<unsigned long long>(gridDim.x) * gridDim.y))};
    run_block(*request);
  }
  for (Fiber& fiber : block.fibers) free(fiber.stack);
  block.fibers.clear();
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(block.shared, rounded);
#endif
  free(block.shared);
  return block.failed ? 1 : 0;
}

}  // namespace on_cpu
