// Tensor cores: matrices from shared memory, and products of 16-bit factors with float sums. Part of device.cuh.
#pragma once

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
