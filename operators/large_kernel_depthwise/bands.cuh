// Rows of 16-bit planes on their way to shared memory, of which matrices are loaded.
#pragma once

#include "stacks.cuh"

// Bytes of an access, as a type.
template <int NUMBER>
struct Access {
  static constexpr int BYTES = NUMBER;
};

// Rows of STACKS images, from one to the next so many values further in global and in shared memory.
struct Apart {
  long long image;
  int held;
};

// Copies every other one of the values from[i][0] to from[i][ends[i] - 1], of at most ROOM, through registers, or puts
// zeros there where `exists[i]` is false. What is under way at a time is loaded before any of it is stored.
template <typename T, int ROOM, int COUNT>
DEVICE void copy_values(T* const (&to)[COUNT], const T* const (&from)[COUNT], const int (&ends)[COUNT],
                        const bool (&exists)[COUNT]) {
  int last = 0;
#pragma unroll
  for (int i = 0; i < COUNT; ++i) last = max(last, ends[i]);
#pragma unroll 1
  for (int base = 0; ROOM > 8 ? base < last : base == 0; base += 8) {
    Vector<T, 1> values[COUNT][4];
#pragma unroll
    for (int i = 0; i < COUNT; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        values[i][j] = zero_vector<T, 1>();
        if (exists[i] && base + 2 * j < ends[i]) values[i][j] = load_vector<T, 1>(from[i] + base + 2 * j);
      }
#pragma unroll
    for (int i = 0; i < COUNT; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (base + 2 * j < ends[i]) store_vector<T, 1>(to[i] + base + 2 * j, values[i][j]);
  }
}

// Two lanes share a row and take every other vector of it; `from` and `to` are where a lane's first one is. Begins to
// copy `columns` values of image c where `exists[c]`; there is room for `room` values, at most ROOM. What is not copied
// becomes zeros, but by accesses of two bytes stays as it is.
template <typename T, int BYTES, int ROOM, int STACKS>
DEVICE void copy_rows(T* to, const T* from, const Apart& apart, const bool (&exists)[STACKS], int columns, int room) {
  constexpr int COUNT = BYTES / static_cast<int>(sizeof(T));
  if constexpr (BYTES == 2) {
    T* rows[STACKS];
    const T* sources[STACKS];
    int ends[STACKS];
    bool all[STACKS];
#pragma unroll
    for (int c = 0; c < STACKS; ++c) {
      rows[c] = to + c * apart.held, sources[c] = from + c * apart.image;
      ends[c] = exists[c] ? min(columns, room) : 0, all[c] = true;
    }
    copy_values<T, ROOM>(rows, sources, ends, all);
    return;
  }
#pragma unroll
  for (int c = 0; c < STACKS; ++c, to += apart.held, from += apart.image) {
    const int end = exists[c] ? columns : 0;
#pragma unroll(ROOM > 8 * BYTES ? 4 : ROOM)
    for (int column = 0; column < ROOM; column += 2 * COUNT)
      if constexpr (BYTES > 2)
        if (column < room) copy_async<BYTES>(to + column, from + column, column < end);
  }
}
