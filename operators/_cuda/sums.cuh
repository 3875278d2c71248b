// How sums leave a kernel: runs of a tile into images, and partial sums of several blocks added in a fixed order.
#pragma once

#include "windows.cuh"

// Stores the values of neighbouring positions, numbered over all images, to one channel of images of plane.by positions
// each. Whole runs at once where no run crosses from one image to the next.
template <typename T, int RUN>
DEVICE void store_run(T* channel, long long image_size, const Divisor& plane, int position, int positions,
                      const float (&values)[RUN]) {
  if (plane.by % RUN == 0) {
    if (position >= positions) return;
    const int image = plane.quotient(position);
    store_floats<T, RUN>(channel + image * image_size + (position - image * plane.by), values);
    return;
  }
#pragma unroll
  for (int i = 0; i < RUN; ++i) {
    if (position + i >= positions) return;
    const int image = plane.quotient(position + i);
    channel[image * image_size + (position + i - image * plane.by)] = from_float<T>(values[i]);
  }
}

// Stores a tile of sums to images of channels x positions: its rows are channels, at most `rows` of them, its columns
// positions numbered over all images, from `column` on.
template <typename T, class Block>
DEVICE void store_tile(const Block& product, T* images, long long image_size, const Divisor& plane, int rows,
                       int column, int positions) {
  constexpr int RUN = Block::RUN;
  const auto place_of = [&](int position) -> long long {
    if (position >= positions) return -1;
    const int image = plane.quotient(position);
    return image * image_size + (position - image * plane.by);
  };
  if (plane.by % RUN == 0) {
    product.each([&](int j) { return place_of(column + j); },
                 [&](int i, long long place, const float(&sums)[RUN]) {
                   if (i < rows && place >= 0)
                     store_floats<T, RUN>(images + place + static_cast<long long>(i) * plane.by, sums);
                 });
    return;
  }
#pragma unroll
  for (int e = 0; e < RUN; ++e)
    product.each([&](int j) { return place_of(column + j + e); },
                 [&](int i, long long place, const float(&sums)[RUN]) {
                   if (i < rows && place >= 0)
                     images[place + static_cast<long long>(i) * plane.by] = from_float<T>(sums[e]);
                 });
}

struct Partials {
  void* result;           // [size]
  const float* partials;  // [count, size]
  int count, size;
};

// One thread adds the partial sums of one value.
template <typename T>
__global__ void __launch_bounds__(256) add_partials(const Partials p) {
  const int i = blockIdx.x * 256 + threadIdx.x;
  if (i >= p.size) return;
  float sum = 0;
  for (int part = 0; part < p.count; ++part) sum += p.partials[static_cast<long long>(part) * p.size + i];
  static_cast<T*>(p.result)[i] = from_float<T>(sum);
}
