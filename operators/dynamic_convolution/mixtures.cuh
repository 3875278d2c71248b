// The mixture of filter sets that an image is convolved with, as an operand of gemm.cuh: each value is mixed while it is
// loaded, so no image's filters exist in memory.
#pragma once

#include "windows.cuh"

// How much of each expert's filters an image takes: in registers where their number is known when compiling, or 0.
template <typename T, int EXPERTS>
struct Attention {
  const T* shares;
  int experts;
  float kept[EXPERTS > 0 ? EXPERTS : 1];

  MEMBER Attention(const void* attention, int image, int experts)
      : shares(static_cast<const T*>(attention) + static_cast<long long>(image) * experts),
        experts(EXPERTS > 0 ? EXPERTS : experts) {
#pragma unroll
    for (int expert = 0; expert < EXPERTS; ++expert) kept[expert] = to_float(shares[expert]);
  }
};

// The same N values of every expert, mixed; the experts' filters are `pitch` values apart.
template <typename T, int EXPERTS, int N>
DEVICE void mix(float (&sums)[N], const T* values, int pitch, const Attention<T, EXPERTS>& attention) {
#pragma unroll
  for (int i = 0; i < N; ++i) sums[i] = 0;
  constexpr int AHEAD = EXPERTS > 0 ? EXPERTS : 2;  // more would take more registers than there are
#pragma unroll AHEAD
  for (int expert = 0; expert < attention.experts; ++expert) {
    const float share = EXPERTS > 0 ? attention.kept[expert] : to_float(attention.shares[expert]);
    float terms[N];
    load_floats<T, N>(terms, values + expert * pitch);
#pragma unroll
    for (int i = 0; i < N; ++i) sums[i] = fmaf(share, terms[i], sums[i]);
  }
}

// The mixture rounded to the operand's type, as filters that lie in memory are.
template <int N, typename T, int EXPERTS>
DEVICE Vector<T, N> mixed(const T* values, int pitch, const Attention<T, EXPERTS>& attention) {
  float sums[N];
  mix(sums, values, pitch, attention);
  Vector<T, N> vector;
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < N; ++i) vector.word[i] = __float_as_uint(sums[i]);
  } else if constexpr (N == 1) {
    vector.word[0] = from_float<T>(sums[0]).bits;
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 2) vector.word[i / 2] = two(from_float<T>(sums[i]), from_float<T>(sums[i + 1]));
  }
  return vector;
}

// Filters as they lie in memory: of `lines` x `depths`, rows of `pitch` values along k or along the lines.
template <typename T, int EXPERTS, int VECTOR_, bool ALONG_K_>
struct MixedMatrix {
  static constexpr bool ALONG_K = ALONG_K_, COPIED = false;
  static constexpr int VECTOR = VECTOR_;
  struct Line {
    const T* values;
    int depths;  // 0 beyond the matrix
  };
  typedef int Depth;

  const T* values;  // of the first expert
  int expert_size;
  Attention<T, EXPERTS> attention;
  int lines, depths, pitch;

  MEMBER Line line(int i) const {
    return {values + static_cast<long long>(i) * (ALONG_K ? pitch : 1), i < lines ? depths : 0};
  }
  MEMBER Depth depth(int k) const { return k; }
  MEMBER Vector<T, VECTOR> load(const Line& line, Depth k) const {
    if (k >= line.depths) return zero_vector<T, VECTOR>();
    return mixed<VECTOR>(line.values + (ALONG_K ? k : static_cast<long long>(k) * pitch), expert_size, attention);
  }
};

// Filters as the gradient of an input multiplies them; see ReachingFilters.
template <typename T, int EXPERTS>
struct MixedReachingFilters : ReachingFilters<T> {
  int expert_size;
  Attention<T, EXPERTS> attention;

  MEMBER Vector<T, 1> load(int filter, int tap) const {
    if ((filter | tap) < 0) return zero_vector<T, 1>();
    return mixed<1>(ReachingFilters<T>::filters + filter + tap, expert_size, attention);
  }
};
