// Stands in for CUDA's execution model, so that g++ compiles the very .cu file that ships and a CPU runs it.
//
// Every CUDA thread is a fibre; the threads of a block run one at a time and switch at barriers, shuffles and matrix
// instructions only; blocks run one after another. What is checked on the way: shared memory reads as NaN until it is
// written, vector accesses must be aligned, all threads must meet at the same barrier, cp.async data arrives no
// earlier than the wait for it. Run under several thread orders, a missing barrier changes the result.
//
// It proves values and indexing. It does not see bank conflicts, coalescing, the rounding order inside a tensor core,
// or races between warps that a fixed order of fibres hides in all the orders tried.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __grid_constant__

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
};

extern "C" {
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
void __syncthreads();
void __syncwarp(unsigned mask = 0xffffffffu);
int __syncthreads_or(int predicate);
}

namespace on_cpu {

// Ends the launch with a message; never returns to the kernel.
[[noreturn]] void fail(const char* message);

// This block's dynamic shared memory.
unsigned char* shared_memory();

// Hands 64 bits from every lane of a warp to every other: on return `all[lane]` is what that lane gave.
const uint64_t* exchange(unsigned mask, uint64_t mine);

// The same for `words` 32-bit words (at most 16) a lane; lane l's begin at `16 * l`.
const uint32_t* exchange_words(const uint32_t* mine, int words);

int lane();

void copy_async(void* to, const void* from, size_t bytes, size_t valid_bytes);
void commit_async();
void wait_async(int pending_groups);

float from_half(uint16_t bits);
uint16_t to_half(float value);
inline float from_bfloat(uint16_t bits) {
  uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  memcpy(&value, &wide, 4);
  return value;
}
inline uint16_t to_bfloat(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

// The row addresses of ldmatrix come from all lanes; `matrices` is 1, 2 or 4.
void load_matrices(unsigned* registers, int matrices, const void* row, bool transposed);

// D[16 x 8] += A[16 x k] B[k x 8] in the documented fragment layout; `half` picks float16, else bfloat16.
void multiply(float* d, const unsigned* a, const unsigned* b, int k, bool half);

template <class T>
T shuffle(unsigned mask, T value, int source) {
  static_assert(sizeof(T) <= 8, "shuffle at most 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  const uint64_t* all = exchange(mask, bits);
  T result;
  memcpy(&result, &all[source & 31], sizeof result);
  return result;
}

inline void require_alignment(const void* address, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes) fail("a vector access is not aligned to its size");
}

}  // namespace on_cpu

template <class T>
T __shfl_sync(unsigned mask, T value, int source) {
  return on_cpu::shuffle(mask, value, source);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int other) {
  return on_cpu::shuffle(mask, value, on_cpu::lane() ^ other);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance) {
  const int source = on_cpu::lane() + static_cast<int>(distance);
  return on_cpu::shuffle(mask, value, source < 32 ? source : on_cpu::lane());
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance) {
  const int source = on_cpu::lane() - static_cast<int>(distance);
  return on_cpu::shuffle(mask, value, source >= 0 ? source : on_cpu::lane());
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const uint64_t* all = on_cpu::exchange(mask, predicate != 0);
  unsigned ballot = 0;
  for (int lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1) ballot |= static_cast<unsigned>(all[lane] & 1) << lane;
  return ballot;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
template <class T>
T __ldg(const T* address) {
  return *address;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz(static_cast<unsigned>(bits)) : 32; }
inline float __uint_as_float(unsigned bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  memcpy(&bits, &value, 4);
  return bits;
}
inline int __float_as_int(float value) { return static_cast<int>(__float_as_uint(value)); }
inline float __int_as_float(int bits) { return __uint_as_float(static_cast<unsigned>(bits)); }
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  unsigned result = 0;
  for (int byte = 0; byte < 4; ++byte) {
    const unsigned source = selector >> (4 * byte) & 7;
    result |= ((source < 4 ? low >> (8 * source) : high >> (8 * (source - 4))) & 255u) << (8 * byte);
  }
  return result;
}
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
#ifdef ON_CPU_KERNEL
// Reading the C++ library's <math.h> would take longer than compiling a kernel. In C's, these are for double alone.
#define ON_CPU_FLOAT_1(name) \
  inline float name(float x) { return __builtin_##name##f(x); }
#define ON_CPU_FLOAT_2(name) \
  inline float name(float x, float y) { return __builtin_##name##f(x, y); }
ON_CPU_FLOAT_1(acos)
ON_CPU_FLOAT_1(acosh)
ON_CPU_FLOAT_1(asin)
ON_CPU_FLOAT_1(asinh)
ON_CPU_FLOAT_1(atan)
ON_CPU_FLOAT_1(atanh)
ON_CPU_FLOAT_1(cbrt)
ON_CPU_FLOAT_1(ceil)
ON_CPU_FLOAT_1(cos)
ON_CPU_FLOAT_1(cosh)
ON_CPU_FLOAT_1(erf)
ON_CPU_FLOAT_1(erfc)
ON_CPU_FLOAT_1(exp)
ON_CPU_FLOAT_1(exp2)
ON_CPU_FLOAT_1(expm1)
ON_CPU_FLOAT_1(fabs)
ON_CPU_FLOAT_1(floor)
ON_CPU_FLOAT_1(lgamma)
ON_CPU_FLOAT_1(log)
ON_CPU_FLOAT_1(log10)
ON_CPU_FLOAT_1(log1p)
ON_CPU_FLOAT_1(log2)
ON_CPU_FLOAT_1(nearbyint)
ON_CPU_FLOAT_1(rint)
ON_CPU_FLOAT_1(round)
ON_CPU_FLOAT_1(sin)
ON_CPU_FLOAT_1(sinh)
ON_CPU_FLOAT_1(sqrt)
ON_CPU_FLOAT_1(tan)
ON_CPU_FLOAT_1(tanh)
ON_CPU_FLOAT_1(tgamma)
ON_CPU_FLOAT_1(trunc)
ON_CPU_FLOAT_2(atan2)
ON_CPU_FLOAT_2(copysign)
ON_CPU_FLOAT_2(fdim)
ON_CPU_FLOAT_2(fmax)
ON_CPU_FLOAT_2(fmin)
ON_CPU_FLOAT_2(fmod)
ON_CPU_FLOAT_2(hypot)
ON_CPU_FLOAT_2(pow)
ON_CPU_FLOAT_2(remainder)
#undef ON_CPU_FLOAT_1
#undef ON_CPU_FLOAT_2
inline float fma(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
inline float ldexp(float x, int exponent) { return __builtin_ldexpf(x, exponent); }
inline float abs(float x) { return __builtin_fabsf(x); }
inline double abs(double x) { return __builtin_fabs(x); }
inline int abs(int x) { return __builtin_abs(x); }
inline long abs(long x) { return __builtin_labs(x); }
inline long long abs(long long x) { return __builtin_llabs(x); }
#endif
inline float rsqrtf(float value) { return 1.0f / sqrtf(value); }
inline float __expf(float value) { return expf(value); }
inline float __logf(float value) { return logf(value); }
inline float __fdividef(float a, float b) { return a / b; }

namespace on_cpu {

template <class Argument>
Argument argument_of(void (*)(Argument));

// What the caller of a compiled kernel hands over; mirrored by emulation.py.
struct Request {
  unsigned grid[3], block[3];
  unsigned long long shared_bytes;
  const void* argument;
  unsigned long long argument_bytes;
  unsigned order;  // 0 forward, 1 reverse, 2 random
  char message[256];
};

int run(Request* request, void (*body)(const void*));

}  // namespace on_cpu

// Makes the kernel `...` callable from outside.
#define ON_CPU_ENTRY(...)                                                                              \
  extern "C" int on_cpu_entry(on_cpu::Request* request) {                                              \
    using Argument = decltype(on_cpu::argument_of(&__VA_ARGS__));                                      \
    if (request->argument_bytes != sizeof(Argument)) {                                                 \
      request->argument_bytes = sizeof(Argument);                                                      \
      return 2;                                                                                        \
    }                                                                                                  \
    return on_cpu::run(request, [](const void* argument) {                                             \
      __VA_ARGS__(*static_cast<const Argument*>(argument));                                            \
    });                                                                                                \
  }
