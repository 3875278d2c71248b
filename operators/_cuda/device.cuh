// What every kernel here is written in: 16-bit types, vector accesses, tensor-core and asynchronous-copy instructions.
//
// Needs no CUDA header, so NVRTC compiles it without an include path: float16 and bfloat16 are 16-bit words. Where a
// CPU runs the kernel, on_cpu.hpp stands in for the execution model and for every instruction below.
#pragma once

#ifdef OPBENCH_ON_CPU
#include "on_cpu.hpp"
#define SHARED_MEMORY(T, name) T* name = reinterpret_cast<T*>(on_cpu::shared_memory())
#else
// The block's dynamic shared memory, as large as the launch asked for; the only kind kernels use.
#define SHARED_MEMORY(T, name)                                             \
  extern __shared__ __align__(128) unsigned char opbench_shared_memory[]; \
  T* name = reinterpret_cast<T*>(opbench_shared_memory)
#endif

#define DEVICE static __device__ __forceinline__

struct float16 {
  unsigned short bits;
};
struct bfloat16 {
  unsigned short bits;
};

// ---- values: stored in 16 or 32 bits, computed in float

DEVICE float to_float(float value) { return value; }

DEVICE float to_float(float16 value) {
#ifdef OPBENCH_ON_CPU
  return on_cpu::from_half(value.bits);
#else
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
#endif
}

DEVICE float to_float(bfloat16 value) { return __uint_as_float(static_cast<unsigned>(value.bits) << 16); }

template <typename T>
struct Rounded;

template <>
struct Rounded<float> {
  DEVICE float from(float value) { return value; }
};

template <>
struct Rounded<float16> {
  DEVICE float16 from(float value) {
    float16 result;
#ifdef OPBENCH_ON_CPU
    result.bits = on_cpu::to_half(value);
#else
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
#endif
    return result;
  }
};

template <>
struct Rounded<bfloat16> {
  DEVICE bfloat16 from(float value) {
    bfloat16 result;
#ifdef OPBENCH_ON_CPU
    result.bits = on_cpu::to_bfloat(value);
#elif __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
#else
    const unsigned bits = __float_as_uint(value);
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    result.bits = static_cast<unsigned short>(is_nan ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
#endif
    return result;
  }
};

// Rounds to nearest even.
template <typename T>
DEVICE T from_float(float value) {
  return Rounded<T>::from(value);
}

// ---- vectors: several values in one access of 2 to 16 bytes

template <int BYTES>
struct Words;
template <>
struct __align__(16) Words<16> {
  unsigned word[4];
};
template <>
struct __align__(8) Words<8> {
  unsigned word[2];
};
template <>
struct __align__(4) Words<4> {
  unsigned word[1];
};
template <>
struct __align__(2) Words<2> {
  unsigned short word[1];
};

// The bytes of N values of T, as whole words: a struct of 16-bit members would be taken apart and put together again.
template <typename T, int N>
using Vector = Words<sizeof(T) * N>;

template <typename T, int N>
DEVICE Vector<T, N> load_vector(const T* address) {
#ifdef OPBENCH_ON_CPU
  on_cpu::require_alignment(address, sizeof(T) * N);
#endif
  return *reinterpret_cast<const Vector<T, N>*>(address);
}

template <typename T, int N>
DEVICE void store_vector(T* address, const Vector<T, N>& vector) {
#ifdef OPBENCH_ON_CPU
  on_cpu::require_alignment(address, sizeof(T) * N);
#endif
  *reinterpret_cast<Vector<T, N>*>(address) = vector;
}

template <typename T, int N>
DEVICE Vector<T, N> zero_vector() {
  Vector<T, N> vector;
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(vector) / sizeof(vector.word[0])); ++i) vector.word[i] = 0;
  return vector;
}

// Value `i` of a vector, as float; `i` must be known when compiling for this to cost one instruction.
DEVICE float value_of(float, const unsigned* words, int i) { return __uint_as_float(words[i]); }
DEVICE float value_of(float16, const unsigned* words, int i) {
  float16 value;
  value.bits = static_cast<unsigned short>(words[i / 2] >> (i % 2 * 16));
  return to_float(value);
}
DEVICE float value_of(bfloat16, const unsigned* words, int i) {
  return __uint_as_float(i % 2 ? words[i / 2] & 0xffff0000u : words[i / 2] << 16);
}

template <typename T, int N>
DEVICE void load_floats(float (&values)[N], const T* address) {
  if constexpr (sizeof(T) * N == 2) {
    values[0] = to_float(*address);
  } else {
    constexpr int STEP = sizeof(T) * N < 16 ? N : 16 / static_cast<int>(sizeof(T));
#pragma unroll
    for (int first = 0; first < N; first += STEP) {
      const Vector<T, STEP> vector = load_vector<T, STEP>(address + first);
#pragma unroll
      for (int i = 0; i < STEP; ++i) values[first + i] = value_of(T{}, vector.word, i);
    }
  }
}

DEVICE unsigned two(float16 low, float16 high) { return low.bits | static_cast<unsigned>(high.bits) << 16; }
DEVICE unsigned two(bfloat16 low, bfloat16 high) { return low.bits | static_cast<unsigned>(high.bits) << 16; }

template <typename T, int N>
DEVICE void store_floats(T* address, const float (&values)[N]) {
  if constexpr (sizeof(T) * N == 2) {
    *address = from_float<T>(values[0]);
  } else {
    constexpr int STEP = sizeof(T) * N < 16 ? N : 16 / static_cast<int>(sizeof(T));
#pragma unroll
    for (int first = 0; first < N; first += STEP) {
      Vector<T, STEP> vector;
      if constexpr (sizeof(T) == 4) {
#pragma unroll
        for (int i = 0; i < STEP; ++i) vector.word[i] = __float_as_uint(values[first + i]);
      } else {
#pragma unroll
        for (int i = 0; i < STEP; i += 2)
          vector.word[i / 2] = two(from_float<T>(values[first + i]), from_float<T>(values[first + i + 1]));
      }
      store_vector<T, STEP>(address + first, vector);
    }
  }
}

// ---- sums over a warp, in an order that does not depend on timing

DEVICE float warp_sum(float value) {
#pragma unroll
  for (int distance = 16; distance; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

DEVICE float warp_max(float value) {
#pragma unroll
  for (int distance = 16; distance; distance /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
  return value;
}

// ---- 2^x in one instruction and e^x in two, zero below 2^-126; for x <= 0 e^x is off by at most 2 + |x| roundings

DEVICE float power_of_two(float exponent) {
#ifdef OPBENCH_ON_CPU
  return exp2f(exponent);
#else
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(exponent));
  return result;
#endif
}

constexpr float LOG2_E = 1.4426950408889634f;

DEVICE float exponential(float value) { return power_of_two(value * LOG2_E); }

// In this order, and after what stands above, which they are written in.
#include "tensor_cores.cuh"
#include "copies.cuh"
