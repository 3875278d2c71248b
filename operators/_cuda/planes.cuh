// Whole planes of small maps in shared memory, for rows that are no whole vectors.
//
// Rows of 7 or 14 values begin at no multiple of 16 bytes, but every so many planes do: a block copies such planes as
// vectors, its threads take a segment of 7 pixels each, and results go back the same way. Rows are PER_ROW segments, 1
// or 2, windows 3 x 3.
#pragma once

#include "rows.cuh"

constexpr int SEGMENT = 7;

// Values at the beginning of shared memory that are zero: what is read in place of rows beyond the image.
constexpr int ZEROS = 32;

// n / by, of 1 / by; right for n below 2^20, where roundings are less than half a unit of n.
DEVICE int quotient(int n, float per_by) { return static_cast<int>((n + 0.5f) * per_by); }

// Runs of vectors of 16 bytes, `step` values apart in global memory, that follow each other in shared memory.
struct Runs {
  int count, vectors;
  float per_vectors;  // 1 / vectors
  int step;
};

// Begins to copy values that follow each other, whole vectors of 16 bytes of them, to shared memory.
template <typename T>
DEVICE void copy_in(T* to, const T* from, int values) {
  constexpr int VALUES = 16 / static_cast<int>(sizeof(T));
#pragma unroll 1
  for (int i = threadIdx.x * VALUES; i < values; i += blockDim.x * VALUES) copy_async<16>(to + i, from + i);
}

template <typename T>
DEVICE void copy_in(T* to, const T* from, const Runs& runs) {
  constexpr int VALUES = 16 / static_cast<int>(sizeof(T));
#pragma unroll 1
  for (int i = threadIdx.x; i < runs.count * runs.vectors; i += blockDim.x) {
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

// Copies back what copy_in would bring.
template <typename T>
DEVICE void copy_out(T* to, const T* from, int values) {
  constexpr int VALUES = 16 / static_cast<int>(sizeof(T));
#pragma unroll 1
  for (int i = threadIdx.x * VALUES; i < values; i += blockDim.x * VALUES)
    store_vector<T, VALUES>(to + i, load_vector<T, VALUES>(from + i));
}

template <typename T>
DEVICE void copy_out(T* to, const T* from, const Runs& runs) {
  constexpr int VALUES = 16 / static_cast<int>(sizeof(T));
#pragma unroll 1
  for (int i = threadIdx.x; i < runs.count * runs.vectors; i += blockDim.x) {
    const int run = quotient(i, runs.per_vectors);
    store_vector<T, VALUES>(to + run * runs.step + (i - run * runs.vectors) * VALUES,
                            load_vector<T, VALUES>(from + i * VALUES));
  }
}

// Neighbours in shared memory, of 16 bits in the words that hold them: half as many accesses as values. `step` values
// on, then an even number, are those of the next channel.
template <typename T>
struct Run {
  T* words;
  unsigned selector;  // which half of a word is the first, and which of it or of the next one is the second
  int step;
};

constexpr unsigned LOWER = 0x3210, BETWEEN = 0x5432, NEXT = 0x7654;

// The segment at an offset, or zeros, the same for all channels, where it is beyond the image.
template <typename T>
DEVICE Run<T> run_at(T* shared, int offset, bool inside, int step) {
  const int first = sizeof(T) == 2 ? offset & ~1 : offset;
  return {inside ? shared + first : shared, LOWER + (offset & 1) * (BETWEEN - LOWER), inside ? step : 0};
}

// Loads a segment, and goes on to the next channel.
template <typename T>
DEVICE void load_run(float (&values)[SEGMENT], Run<T>& run) {
  if constexpr (sizeof(T) == 2) {
    unsigned words[5] = {};
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = load_vector<T, 2>(run.words + 2 * i).word[0];
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = __byte_perm(words[i], words[i + 1], run.selector);
#pragma unroll
    for (int i = 0; i < SEGMENT; ++i) values[i] = value_of(T{}, words, i);
  } else {
#pragma unroll
    for (int i = 0; i < SEGMENT; ++i) values[i] = run.words[i];
  }
  run.words += run.step;
}

// What the windows of a segment's pixels reach, row by row: of a row of two segments also the nearest of the other's.
template <int PER_ROW, typename T>
struct Window {
  Run<T> rows[3];
};

// `number` counts an image's segments, or those of images that follow each other.
template <int PER_ROW, typename T>
DEVICE Window<PER_ROW, T> window_at(T* shared, int offset, int number, int row, int height, int step) {
  Window<PER_ROW, T> window;
#pragma unroll
  for (int a = 0; a < 3; ++a) {
    const int begin = offset + (a - 1) * PER_ROW * SEGMENT;
    const bool inside = has_row(row, a - 1, height);
    window.rows[a] = run_at(shared, begin, inside, step);
    // Eight values in whole words, behind a zero or before one.
    if (PER_ROW == 2) window.rows[a].selector = number % 2 ? NEXT : BETWEEN;
  }
  return window;
}

// Loads the rows of a window with a pixel on either side, zeros beyond the image, and goes on to the next channel.
template <int PER_ROW, typename T>
DEVICE void load_window(float (&rows)[3][SEGMENT + 2], Window<PER_ROW, T>& window) {
  static_assert(PER_ROW == 1 || sizeof(T) == 2, "two segments of a row are told apart by halves of words");
#pragma unroll
  for (int a = 0; a < 3; ++a) {
    Run<T>& run = window.rows[a];
    if constexpr (PER_ROW == 1) {
      float own[SEGMENT];
      load_run(own, run);
#pragma unroll
      for (int i = 0; i < SEGMENT; ++i) rows[a][1 + i] = own[i];
      rows[a][0] = rows[a][SEGMENT + 1] = 0;
    } else {
      unsigned words[6] = {}, shifted[5];
#pragma unroll
      for (int i = 0; i < 4; ++i) words[1 + i] = load_vector<T, 2>(run.words + 2 * i).word[0];
#pragma unroll
      for (int i = 0; i < 5; ++i) shifted[i] = __byte_perm(words[i], words[i + 1], run.selector);
#pragma unroll
      for (int i = 0; i < SEGMENT + 2; ++i) rows[a][i] = value_of(T{}, shifted, i);
      run.words += run.step;
    }
  }
}

// Stores a segment, and goes on to the next channel; two values at once but for the first or the last one, the other
// half of whose word is another thread's.
template <typename T>
DEVICE void store_run(Run<T>& run, const float (&values)[SEGMENT]) {
  if constexpr (sizeof(T) == 2) {
    unsigned words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      words[i] = two(from_float<T>(values[2 * i]), from_float<T>(values[i < 3 ? 2 * i + 1 : SEGMENT - 1]));
    const bool upper = run.selector != LOWER;
    T alone;
    alone.bits = static_cast<unsigned short>(upper ? words[0] : words[3]);
    run.words[upper ? 1 : SEGMENT - 1] = alone;
#pragma unroll
    for (int i = 0; i < 3; ++i)
      store_vector<T, 2>(run.words + 2 * i + (upper ? 2 : 0), {__byte_perm(words[i], words[i + 1], run.selector)});
  } else {
#pragma unroll
    for (int i = 0; i < SEGMENT; ++i) run.words[i] = values[i];
  }
  run.words += run.step;
}
