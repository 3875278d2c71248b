// What every kernel of local attention knows: extents, where a tap lies, and the embedding of its position.
//
// q, k, v, y and their gradients are [images * heads, channels, height, width] here, one head of one image a `map`.
// Tap (a, b) of the query at (row, column) is the key at (row + a - radius, column + b - radius).
#pragma once
#include "device.cuh"

struct Extents {
  int heads, channels, height, width;
  int window;    // keys per side
  int masked;    // taps outside the image: 1 leaves them out, 0 keeps them as zero keys
  int per_head;  // whether each head has embeddings of its own
};

// Below every logit, and finite: the difference of two of it is not NaN.
constexpr float LEFT_OUT = -1e38f;
// Below every logit that counts, and above those that are left out.
constexpr float LOWEST = LEFT_OUT / 2;

// A share of the attention but for a scale: what a logit is to the highest, which is in units of log 2. On float units
// the forward keeps that one of each query. The scale comes from the shares that the backward computes, which then add
// up to one; a saved logarithm of their sum would be rounded, and its rounding an error of all of them.
DEVICE float unscaled_share(float logit, float highest) { return power_of_two(fmaf(logit, LOG2_E, -highest)); }

// Embedding of channel `channel` at tap (a, b): the first half of a head's channels has it from the row, the second
// half from the column. rel_h and rel_w are [channels / 2, window], or [heads, channels / 2, window].
template <typename T>
struct Embeddings {
  const T *row, *column;
  int half, window;

  DEVICE Embeddings of(const void* rel_h, const void* rel_w, const Extents& p, int map) {
    const int half = p.channels / 2, start = p.per_head ? map % p.heads * half * p.window : 0;
    return {static_cast<const T*>(rel_h) + start, static_cast<const T*>(rel_w) + start, half, p.window};
  }
  __device__ __forceinline__ float at(int channel, int a, int b) const {
    return to_float(channel < half ? row[channel * window + a] : column[(channel - half) * window + b]);
  }
};

// A map's first element, as far as 64 bits are needed: offsets within a map fit 32.
template <typename T>
DEVICE const T* map_of(const void* tensor, const Extents& p, int map) {
  return static_cast<const T*>(tensor) + static_cast<long long>(map) * p.channels * p.height * p.width;
}
template <typename T>
DEVICE T* map_of(void* tensor, const Extents& p, int map) {
  return static_cast<T*>(tensor) + static_cast<long long>(map) * p.channels * p.height * p.width;
}
