// Segments of image rows: neighbouring pixels that one thread takes care of, and those around that windows reach.
#pragma once

#include "device.cuh"

// PIXELS neighbours in a row of one of an image's planes; the width is a multiple of PIXELS.
struct Segment {
  int plane, row, column;
};

template <int PIXELS>
DEVICE Segment segment_at(unsigned index, int height, int width) {
  const unsigned in_row = width / PIXELS, row = index / in_row, plane = row / height;
  return {static_cast<int>(plane), static_cast<int>(row - plane * height),
          static_cast<int>(index - row * in_row) * PIXELS};
}

// Loads a segment and REACH pixels on either side: values[REACH] is at `segment`, the pixel in `column` of its row.
// What is beyond the row's ends is zero and not read.
template <int REACH, typename T, int COUNT>
DEVICE void load_row(float (&values)[COUNT], const T* segment, int column, int width) {
  // A row is whole segments, so that the vectors beside one are in the row or not.
  constexpr int PIXELS = COUNT - 2 * REACH, STEP = REACH == 1 ? 1 : PIXELS;
  float middle[PIXELS];
  load_floats<T, PIXELS>(middle, segment);
#pragma unroll
  for (int i = 0; i < PIXELS; ++i) values[REACH + i] = middle[i];
#pragma unroll
  for (int beside = STEP; beside < REACH + STEP; beside += STEP) {
    float left[STEP] = {}, right[STEP] = {};
    if (column >= beside) load_floats<T, STEP>(left, segment - beside);
    if (column + PIXELS + beside <= width) load_floats<T, STEP>(right, segment + PIXELS + beside - STEP);
#pragma unroll
    for (int i = 0; i < STEP; ++i) {
      if (REACH - beside + i >= 0) values[REACH - beside + i] = left[i];
      if (REACH + PIXELS + beside - STEP + i < COUNT) values[REACH + PIXELS + beside - STEP + i] = right[i];
    }
  }
}

// Whether there is a row `down` rows below, which may be negative.
DEVICE bool has_row(int row, int down, int height) {
  return static_cast<unsigned>(row + down) < static_cast<unsigned>(height);
}

// Whether there is a column `right` columns to the right, which may be negative.
DEVICE bool has_column(int column, int right, int width) {
  return static_cast<unsigned>(column + right) < static_cast<unsigned>(width);
}

// Offset of the row `down` rows below, or of the image's row that is nearest to it.
//
// To read that one with a coefficient of zero takes a select per coefficient, and to read zeros one per pixel, every
// time. It is in the window of the very pixel, so that no Inf enters where none was before.
DEVICE int nearest_row(int row, int down, int height, int width) {
  return (min(max(row + down, 0), height - 1) - row) * width;
}

// Loads the K rows that the windows of a segment's pixels reach, and for rows beyond the image others.
template <int K, typename T, int COUNT>
DEVICE void load_rows(float (&rows)[K][COUNT], const T* segment, int row, int column, int height, int width) {
#pragma unroll
  for (int a = 0; a < K; ++a)
    load_row<K / 2>(rows[a], segment + nearest_row(row, a - K / 2, height, width), column, width);
}

// sums[i] = the window of pixel i, each tap times its coefficient, coefficients[FIRST] that of the first tap.
template <int K, int FIRST = 0, int COUNT, int PIXELS>
DEVICE void weigh(float (&sums)[PIXELS], const float (&coefficients)[COUNT][PIXELS],
                  const float (&rows)[K][PIXELS + K - 1]) {
#pragma unroll
  for (int i = 0; i < PIXELS; ++i) sums[i] = 0;
#pragma unroll
  for (int tap = 0; tap < K * K; ++tap)
#pragma unroll
    for (int i = 0; i < PIXELS; ++i) sums[i] += coefficients[FIRST + tap][i] * rows[tap / K][tap % K + i];
}

// sums[FIRST + tap][i] += pixel i times what its window has at the tap.
template <int K, int FIRST = 0, int COUNT, int PIXELS>
DEVICE void correlate(float (&sums)[COUNT][PIXELS], const float (&pixels)[PIXELS],
                      const float (&rows)[K][PIXELS + K - 1]) {
#pragma unroll
  for (int tap = 0; tap < K * K; ++tap)
#pragma unroll
    for (int i = 0; i < PIXELS; ++i) sums[FIRST + tap][i] += pixels[i] * rows[tap / K][tap % K + i];
}

// Makes the taps zero that are in rows beyond the image: load_rows has put others there.
template <int K, int FIRST = 0, int COUNT, int PIXELS>
DEVICE void clear_beyond(float (&taps)[COUNT][PIXELS], int row, int height) {
#pragma unroll
  for (int tap = 0; tap < K * K; ++tap)
#pragma unroll
    for (int i = 0; i < PIXELS; ++i)
      if (!has_row(row, tap / K - K / 2, height)) taps[FIRST + tap][i] = 0;
}

// The pixels of a segment, of the rows that their windows reach.
template <int K, int PIXELS>
DEVICE void take_middle(float (&pixels)[PIXELS], const float (&rows)[K][PIXELS + K - 1]) {
#pragma unroll
  for (int i = 0; i < PIXELS; ++i) pixels[i] = rows[K / 2][K / 2 + i];
}
