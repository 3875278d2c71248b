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

// Two lanes share a row and take every other vector of it; `from` and `to` are where a lane's first one is. Begins to
// copy `columns` values of image c, or puts zeros there where `exists[c]` is false; there is room for `room` values, at
// most ROOM, and those beyond the others may become zeros.
template <typename T, int BYTES, int ROOM, int STACKS>
DEVICE void copy_rows(T* to, const T* from, const Apart& apart, const bool (&exists)[STACKS], int columns, int room) {
  constexpr int COUNT = BYTES / static_cast<int>(sizeof(T));
#pragma unroll
  for (int c = 0; c < STACKS; ++c, to += apart.held, from += apart.image)
    if constexpr (BYTES == 2) {
      const int end = min(columns, room);
#pragma unroll 4
      for (int column = 0; column < end; column += 2)
        store_vector<T, 1>(to + column, exists[c] ? load_vector<T, 1>(from + column) : zero_vector<T, 1>());
    } else {
      const int end = exists[c] ? columns : 0;
#pragma unroll(ROOM > 8 * BYTES ? 4 : ROOM)
      for (int column = 0; column < ROOM; column += 2 * COUNT)
        if (column < room) copy_async<BYTES>(to + column, from + column, column < end);
    }
}
