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

// ---- shared memory as the matrix and copy instructions want it: 32-bit addresses, so that offsets fold into them

#ifdef OPBENCH_ON_CPU
typedef char* SharedAddress;
DEVICE SharedAddress shared_address(const void* pointer) {
  return const_cast<SharedAddress>(static_cast<const char*>(pointer));
}
#else
typedef unsigned SharedAddress;
DEVICE SharedAddress shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}
#endif

// Loads MATRICES (1, 2 or 4) 8x8 matrices of 16-bit values from shared memory, one register each. Lane l names the
// 16-byte aligned row l % 8 of matrix l / 8, and receives of each matrix M the pair M[l / 4][2 * (l % 4) + {0, 1}].
template <int MATRICES>
DEVICE void load_matrices(unsigned (&registers)[MATRICES], SharedAddress row) {
  static_assert(MATRICES == 1 || MATRICES == 2 || MATRICES == 4, "ldmatrix loads 1, 2 or 4 matrices");
#ifdef OPBENCH_ON_CPU
  on_cpu::load_matrices(registers, MATRICES, row, false);
#else
  if constexpr (MATRICES == 1)
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(registers[0]) : "r"(row) : "memory");
  else if constexpr (MATRICES == 2)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1])
                 : "r"(row)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(row)
                 : "memory");
#endif
}

// The same, each matrix transposed on the way: lane l receives the pair M[2 * (l % 4) + {0, 1}][l / 4].
template <int MATRICES>
DEVICE void load_matrices_transposed(unsigned (&registers)[MATRICES], SharedAddress row) {
  static_assert(MATRICES == 1 || MATRICES == 2 || MATRICES == 4, "ldmatrix loads 1, 2 or 4 matrices");
#ifdef OPBENCH_ON_CPU
  on_cpu::load_matrices(registers, MATRICES, row, true);
#else
  if constexpr (MATRICES == 1)
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(registers[0])
                 : "r"(row)
                 : "memory");
  else if constexpr (MATRICES == 2)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1])
                 : "r"(row)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(row)
                 : "memory");
#endif
}

// ---- tensor cores: D[16 x 8] += A[16 x K] B[K x 8] by one warp, 16-bit factors, float sums
//
// Lane l holds D[l / 4 + 8 * (e / 2)][2 * (l % 4) + e % 2] in d[e]; of A, pairs along a row: a[i] is
// A[l / 4 + 8 * (i % 2)][2 * (l % 4) + 8 * (i / 2) + {0, 1}]; of B, pairs along a column: b[i] is
// B[2 * (l % 4) + 8 * i + {0, 1}][l / 4]. load_matrices gives A from rows of A, and B from rows of B transposed.

#ifndef OPBENCH_ON_CPU
#if __CUDA_ARCH__ < 800
// No such instruction on this device: bfloat16 values pass through shuffles and are summed one by one.
// A function of its own: inlined at each of a kernel's products, it takes minutes to compile.
struct ShuffledSums {
  float d[4];
};
static __device__ __noinline__ ShuffledSums sums_by_shuffles(ShuffledSums sums, unsigned a0, unsigned a1, unsigned b) {
  const unsigned a[2] = {a0, a1};
  const int lane = (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) & 31;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    float row[2], column[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const unsigned from_a = __shfl_sync(0xffffffffu, a[h], lane / 4 * 4 + i / 2);
      const unsigned from_b = __shfl_sync(0xffffffffu, b, (2 * (lane % 4) + h) * 4 + i / 2);
      row[h] = __uint_as_float(i % 2 ? from_a & 0xffff0000u : from_a << 16);
      column[h] = __uint_as_float(i % 2 ? from_b & 0xffff0000u : from_b << 16);
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) sums.d[e] += row[e / 2] * column[e % 2];
  }
  return sums;
}
DEVICE void multiply_by_shuffles(float (&d)[4], const unsigned* a, unsigned b) {
  const ShuffledSums sums = sums_by_shuffles({{d[0], d[1], d[2], d[3]}}, a[0], a[1], b);
#pragma unroll
  for (int e = 0; e < 4; ++e) d[e] = sums.d[e];
}
#endif
#endif

template <typename T>
struct TensorCore;

template <>
struct TensorCore<float16> {
  DEVICE void multiply(float (&d)[4], const unsigned (&a)[2], const unsigned (&b)[1]) {
#ifdef OPBENCH_ON_CPU
    on_cpu::multiply(d, a, b, 8, true);
#else
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b[0]));
#endif
  }
  DEVICE void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef OPBENCH_ON_CPU
    on_cpu::multiply(d, a, b, 16, true);
#elif __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    const unsigned left[2] = {a[0], a[1]}, right[2] = {a[2], a[3]}, above[1] = {b[0]}, below[1] = {b[1]};
    multiply(d, left, above);
    multiply(d, right, below);
#endif
  }
};

template <>
struct TensorCore<bfloat16> {
  DEVICE void multiply(float (&d)[4], const unsigned (&a)[2], const unsigned (&b)[1]) {
#ifdef OPBENCH_ON_CPU
    on_cpu::multiply(d, a, b, 8, false);
#elif __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b[0]));
#else
    multiply_by_shuffles(d, a, b[0]);
#endif
  }
  DEVICE void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef OPBENCH_ON_CPU
    on_cpu::multiply(d, a, b, 16, false);
#elif __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    multiply_by_shuffles(d, a, b[0]);
    multiply_by_shuffles(d, a + 2, b[1]);
#endif
  }
};

// D += A B, where the sizes of `a` and `b` say whether K is 8 or 16.
template <typename T, int A, int B>
DEVICE void multiply_tiles(float (&d)[4], const unsigned (&a)[A], const unsigned (&b)[B]) {
  TensorCore<T>::multiply(d, a, b);
}

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
