// Whole planes of small maps in shared memory, for rows that are no whole vectors.
//
// Rows of 7 or 14 values of 16 bits begin at no multiple of 16 bytes, but every so many planes do: a block copies such
// bundles of planes as vectors, its threads take a segment of SEGMENT pixels each, and results go back the same way.
#pragma once

#include "rows.cuh"

constexpr int SEGMENT = 7;

// Values at the beginning of shared memory that are zero: what is read in place of rows beyond the image.
constexpr int ZEROS = 16;

// Planes of height x width in shared memory; a row is whole segments, and just one where WHOLE.
struct Map {
  int height, width;
  float per_height, per_row;  // 1 / height and SEGMENT / width
};

template <bool WHOLE>
DEVICE int width_of(const Map& map) {
  return WHOLE ? SEGMENT : map.width;
}

// n / by, of 1 / by; right for n below 2^20, where roundings are less than half a unit of n.
DEVICE int quotient(int n, float per_by) { return static_cast<int>((n + 0.5f) * per_by); }

// The segment of this number, counted through planes that follow each other.
template <bool WHOLE>
DEVICE Segment segment_of(int number, const Map& map) {
  const int row = WHOLE ? number : quotient(number, map.per_row), plane = quotient(row, map.per_height);
  return {plane, row - plane * map.height, WHOLE ? 0 : number * SEGMENT - row * map.width};
}

// Runs of vectors of 16 bytes, `step` values apart in global memory, that follow each other in shared memory.
struct Runs {
  int count, vectors;
  float per_vectors;  // 1 / vectors
  int step;
};

// Begins to copy runs to shared memory.
template <int THREADS, typename T>
DEVICE void copy_in(T* to, const T* from, const Runs& runs) {
  constexpr int VALUES = 16 / static_cast<int>(sizeof(T));
#pragma unroll 1
  for (int i = threadIdx.x; i < runs.count * runs.vectors; i += THREADS) {
    const int run = quotient(i, runs.per_vectors);
    copy_async<16>(to + i * VALUES, from + run * runs.step + (i - run * runs.vectors) * VALUES);
  }
}

// Waits until all has come that the block's threads have begun to copy, and makes the zeros.
template <typename T>
DEVICE void finish_copies(T* shared) {
  if (threadIdx.x < ZEROS) shared[threadIdx.x] = from_float<T>(0);
  commit_copies();
  wait_for_copies<0>();
  __syncthreads();
}

template <int THREADS, typename T>
DEVICE void copy_out(T* to, const T* from, const Runs& runs) {
  constexpr int VALUES = 16 / static_cast<int>(sizeof(T));
#pragma unroll 1
  for (int i = threadIdx.x; i < runs.count * runs.vectors; i += THREADS) {
    const int run = quotient(i, runs.per_vectors);
    store_vector<T, VALUES>(to + run * runs.step + (i - run * runs.vectors) * VALUES,
                            load_vector<T, VALUES>(from + i * VALUES));
  }
}

// Neighbours in shared memory, in the words that hold them: half as many accesses as values. They begin in the lower
// half of the first word or in the upper; `step` values on, an even number, is the next channel.
template <typename T>
struct Run {
  const T* words;
  unsigned selector;  // of the first half and the one after it
  int step;
};

// The run from an offset on, or zeros, the same for all channels, where it is beyond the image.
template <typename T>
DEVICE Run<T> run_at(const T* shared, int offset, bool inside, int step) {
  return {inside ? shared + (offset & ~1) : shared, 0x3210u + (offset & 1) * 0x2222u, inside ? step : 0};
}

// Loads an odd number of neighbours, and goes on to the next channel.
template <typename T, int COUNT>
DEVICE void load_run(float (&values)[COUNT], Run<T>& run) {
  constexpr int WORDS = (COUNT + 1) / 2;
  unsigned words[WORDS + 1];
#pragma unroll
  for (int i = 0; i < WORDS; ++i) words[i] = load_vector<T, 2>(run.words + 2 * i).word[0];
  words[WORDS] = 0;
#pragma unroll
  for (int i = 0; i < WORDS; ++i) words[i] = __byte_perm(words[i], words[i + 1], run.selector);
#pragma unroll
  for (int i = 0; i < COUNT; ++i) values[i] = value_of(T{}, words, i);
  run.words += run.step;
}

// A segment and the pixel on either side of it, where a row is more than one; of three rows.
template <typename T>
struct Window {
  Run<T> rows[3];
  bool first, last;  // whether the segment is the first of its row, or the last
};

// What the windows of 3 x 3 around a segment's pixels reach.
template <bool WHOLE, typename T>
DEVICE Window<T> window_at(const T* shared, int offset, const Segment& at, int step, const Map& map) {
  Window<T> window;
#pragma unroll
  for (int a = 0; a < 3; ++a)
    window.rows[a] = run_at(shared, offset + (a - 1) * width_of<WHOLE>(map) - (WHOLE ? 0 : 1),
                            has_row(at.row, a - 1, map.height), step);
  window.first = at.column == 0;
  window.last = at.column + SEGMENT == map.width;
  return window;
}

// Loads row `a` of a window, zeros beyond the image, and goes on to the next channel.
template <bool WHOLE, typename T>
DEVICE void load_row(float (&values)[SEGMENT + 2], Window<T>& window, int a) {
  if constexpr (WHOLE) {
    float own[SEGMENT];
    load_run(own, window.rows[a]);
#pragma unroll
    for (int i = 0; i < SEGMENT; ++i) values[1 + i] = own[i];
    values[0] = values[SEGMENT + 1] = 0;
  } else {
    load_run(values, window.rows[a]);
    if (window.first) values[0] = 0;
    if (window.last) values[SEGMENT + 1] = 0;
  }
}

template <bool WHOLE, typename T>
DEVICE void load_window(float (&rows)[3][SEGMENT + 2], Window<T>& window) {
#pragma unroll
  for (int a = 0; a < 3; ++a) load_row<WHOLE>(rows[a], window, a);
}

template <typename T>
DEVICE void store_segment(T* segment, const float (&values)[SEGMENT]) {
#pragma unroll
  for (int i = 0; i < SEGMENT; ++i) segment[i] = from_float<T>(values[i]);
}
