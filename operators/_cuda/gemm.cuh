// One block's tile of a matrix product, sums[M x N] += A[M x K] B[K x N]: float by strict multiply-adds, 16 bits on
// tensor cores with float sums. What A and B are is up to the kernel, so a convolution never writes out its windows.
//
//   using Block = Product<T, 128, 64>;                       // M x N: M is 64 or 128, N is 16, 32, 64 or 128
//   __global__ void __launch_bounds__(Block::THREADS) kernel(const P p) {  // one-dimensional blocks of 2 * M threads
//     SHARED_MEMORY(T, shared);                              // Block::BYTES: 160 * (M + N), and 1024 where N < 64
//     Block product;
//     product.clear();
//     product.add(Filters<T>{...}, Windows<T>{...}, 0, depth, shared);        // all threads of the block; k from 0
//     product.shift([&](int row) { return bias[row]; });                      // if rows have a bias
//     product.each([&](int row, int column, const float (&sums)[Block::RUN]) { ... store sums[i] at column + i ... });
//   }
//
// `add` may be called again, with other operands or another range of k: for the next image of a weight gradient, or
// for each region of a tile. It ends without a barrier and begins with one.
//
// An operand is a struct that a kernel fills in. Its *lines* are the rows of A or the columns of B, numbered within
// the tile; its *depth* is k. It tells how its values lie in memory and loads them:
//
//   struct Windows {
//     static constexpr bool ALONG_K = false;  // do neighbours in k lie side by side in memory, or neighbouring lines?
//     static constexpr int VECTOR = 1;        // values of one load, along that direction: 1 or up to 16 bytes
//     static constexpr bool COPIED = false;   // loaded by asynchronous copies, of 4, 8 or 16 bytes?
//     static constexpr bool TABLED = true;    // if it is dear to know a k (ALONG_K: a line): see below
//     struct Line {...};                      // what is known of one line
//     struct Depth {...};                     // what is known of one k
//     MEMBER Line line(int i) const;
//     MEMBER Depth depth(int k) const;
//     MEMBER Vector<T, VECTOR> load(const Line&, const Depth&) const;         // where not COPIED; see below
//     MEMBER Source<T> source(const Line&, const Depth&) const;               // where COPIED
//   };
//
// A thread works out what it needs of the dimension that is contiguous in memory, lines once, k at every step, and of
// the other at every load. Where the latter is dear, TABLED has the block work it out once for all its threads, and
// keep it in shared memory: at most 8 bytes for each k, or for each line where the operand is ALONG_K.
//
// With VECTOR > 1 only every VECTOR-th line (or k) is asked for, the first of each vector, and sources are aligned to
// the vector. `load` may compute what it returns: a mixture of several filters, a masked or scaled gradient. But what
// it computes it waits for: where it returns something else than a vector, a function `finished` makes a vector of
// that, after the multiplications that the loads were to go along with.
// Lines and k beyond the matrix are asked for as well and must give zeros, in both operands: 0 * NaN is not 0.
// Float operands that lie along k cannot be COPIED: their tiles are transposed on the way to shared memory.
#pragma once

#include "device.cuh"

#define MEMBER __device__ __forceinline__

// Where the values of an asynchronous copy are; where not valid, zeros are taken and nothing is read there.
template <typename T>
struct Source {
  const T* address;
  bool valid;
};

// The operand that is a matrix in memory: of `lines` x `depths`, rows of `pitch` values along k or along the lines,
// less than 2^31 values in all.
template <typename T, int VECTOR_, bool ALONG_K_>
struct Matrix {
  static constexpr bool ALONG_K = ALONG_K_, COPIED = VECTOR_ * sizeof(T) >= 4 && (sizeof(T) == 2 || !ALONG_K);
  static constexpr int VECTOR = VECTOR_;
  const T* values;
  int lines, depths, pitch;

  typedef int Line;   // its offset, -1 beyond the matrix
  typedef int Depth;  // what k adds to that, -1 beyond the matrix

  MEMBER Line line(int i) const { return i < lines ? i * (ALONG_K ? pitch : 1) : -1; }
  MEMBER Depth depth(int k) const { return k < depths ? k * (ALONG_K ? 1 : pitch) : -1; }
  MEMBER Source<T> source(Line line, Depth depth) const {
    const bool valid = (line | depth) >= 0;
    return {valid ? values + line + depth : values, valid};
  }
  MEMBER Vector<T, VECTOR> load(Line line, Depth depth) const {
    return (line | depth) >= 0 ? load_vector<T, VECTOR>(values + line + depth) : zero_vector<T, VECTOR>();
  }
};

// How one operand's part of a stage lies in shared memory: along k in rows of a line each, or along the lines in rows
// of a k each. Eight neighbouring rows have their 16-byte pieces of one column in different banks: by padding where
// rows are long, where they are of 64 bytes by exchanging the four pieces of every other pair of rows.
template <typename T, int LINES, bool ALONG_K>
struct Stage {
  static constexpr int DEPTH = sizeof(T) == 4 ? 16 : 32, BYTES = 80 * LINES + (LINES < 64 ? 512 : 0);
  static constexpr bool BY_LINE = ALONG_K && sizeof(T) == 2;
  static constexpr int PITCH = BY_LINE ? DEPTH : LINES + 16 / static_cast<int>(sizeof(T));
  // After the values comes what is known of each k, or of each line.
  static constexpr int TABLE_AT = PITCH * (BY_LINE ? LINES : DEPTH) * sizeof(T), TABLE = ALONG_K ? LINES : DEPTH;
  static_assert(TABLE_AT + TABLE * 8 <= BYTES, "a stage exceeds the room kept for it");

  DEVICE int offset(int line, int depth) {
    return BY_LINE ? line * PITCH + ((depth / 8 ^ line / 2 % 4) * 8 + depth % 8) : depth * PITCH + line;
  }
};

// Whether an operand says that it is TABLED.
template <class Operand>
__device__ constexpr auto is_tabled(int) -> decltype(Operand::TABLED) {
  return Operand::TABLED;
}
template <class Operand>
__device__ constexpr bool is_tabled(...) {
  return false;
}

// The type of what an operand's `load` gives, int where it has none.
template <class Operand>
__device__ auto loaded_by(const Operand* operand, const typename Operand::Line* line,
                          const typename Operand::Depth* depth) -> decltype(operand->load(*line, *depth));
__device__ int loaded_by(...);

// What is stored of what was loaded.
template <int BYTES>
DEVICE Words<BYTES> finished(const Words<BYTES>& loaded) {
  return loaded;
}

// Brings an operand to shared memory, stage by stage: by asynchronous copies, or through registers, so that the loads
// of the next stage are under way while this one is multiplied. Neighbouring threads load neighbouring values.
template <typename T, int LINES, int THREADS, class Operand>
struct Loader {
  using Place = Stage<T, LINES, Operand::ALONG_K>;
  static constexpr bool ALONG_K = Operand::ALONG_K, COPIED = Operand::COPIED;
  static constexpr int VECTOR = Operand::VECTOR;
  // Single 16-bit values are stored in pairs.
  static constexpr int GROUP = VECTOR * sizeof(T) < 4 ? 2 : VECTOR, LOADS = GROUP / VECTOR;
  static constexpr int SLOTS = (ALONG_K ? Place::DEPTH : LINES) / GROUP, STEP = THREADS / SLOTS;
  static constexpr int ROUNDS = LINES * Place::DEPTH / GROUP / THREADS;
  static_assert(!COPIED || VECTOR * sizeof(T) >= 4, "an asynchronous copy has 4, 8 or 16 bytes");
  static_assert(!COPIED || Place::BY_LINE == ALONG_K, "a tile that is transposed cannot be copied");

  static constexpr bool TABLED = is_tabled<Operand>(0);
  typedef typename Operand::Line Line;
  typedef typename Operand::Depth Depth;

  Operand operand;
  T* shared;  // the operand's part of the first stage
  int slot, first;
  Line lines[LOADS];
  decltype(loaded_by(static_cast<const Operand*>(nullptr), static_cast<const Line*>(nullptr),
                     static_cast<const Depth*>(nullptr))) values[COPIED ? 1 : ROUNDS][LOADS];

  MEMBER Loader(const Operand& given, T* shared)
      : operand(given), shared(shared), slot(threadIdx.x % SLOTS * GROUP), first(threadIdx.x / SLOTS) {
    if constexpr (!ALONG_K) {
#pragma unroll
      for (int i = 0; i < LOADS; ++i) lines[i] = operand.line(slot + i);
    }
    if constexpr (ALONG_K && TABLED) {
      for (int i = threadIdx.x; i < LINES; i += THREADS) table<Line>(shared)[i] = operand.line(i);
    }
  }

  // Makes known the stage that begins at `k`; after a barrier it can be fetched.
  MEMBER void prepare(int k, T* stage) const {
    if constexpr (!ALONG_K && TABLED) {
      if (threadIdx.x < Place::DEPTH) table<Depth>(stage)[threadIdx.x] = operand.depth(k + threadIdx.x);
    }
  }

  // Starts to load the stage that begins at `k`.
  MEMBER void fetch(int k, T* stage) {
    if constexpr (ALONG_K) {
      Depth depths[LOADS];
#pragma unroll
      for (int i = 0; i < LOADS; ++i) depths[i] = operand.depth(k + slot + i);
#pragma unroll
      for (int round = 0; round < ROUNDS; ++round) {
        const Line line = line_at(first + round * STEP);
#pragma unroll
        for (int i = 0; i < LOADS; ++i) fetch(line, depths[i], round, i, stage);
      }
    } else {
#pragma unroll
      for (int round = 0; round < ROUNDS; ++round) {
        const Depth depth = depth_at(k, first + round * STEP, stage);
#pragma unroll
        for (int i = 0; i < LOADS; ++i) fetch(lines[i], depth, round, i, stage);
      }
    }
  }

  // Stores what `fetch` left in registers.
  MEMBER void keep(T* stage) const {
    if constexpr (!COPIED) {
#pragma unroll
      for (int round = 0; round < ROUNDS; ++round) {
        if constexpr (Place::BY_LINE != ALONG_K) {
#pragma unroll
          for (int i = 0; i < VECTOR; ++i)
            stage[Place::offset(first + round * STEP, slot + i)] = value_of(T{}, finished(values[round][0]).word, i);
        } else if constexpr (LOADS == 2) {
          const unsigned low = finished(values[round][0]).word[0], high = finished(values[round][1]).word[0];
          store_vector<T, 2>(stage + offset(round), {{low | high << 16}});
        } else {
          store_vector<T, VECTOR>(stage + offset(round), finished(values[round][0]));
        }
      }
    }
  }

 private:
  template <class Known>
  DEVICE Known* table(T* stage) {
    static_assert(sizeof(Known) <= 8, "a table has 8 bytes for each k or line");
    return reinterpret_cast<Known*>(stage + Place::TABLE_AT / sizeof(T));
  }

  MEMBER Line line_at(int i) const {
    if constexpr (TABLED)
      return table<Line>(shared)[i];
    else
      return operand.line(i);
  }

  MEMBER Depth depth_at(int k, int i, T* stage) const {
    if constexpr (TABLED)
      return table<Depth>(stage)[i];
    else
      return operand.depth(k + i);
  }

  MEMBER int offset(int round) const {
    const int other = first + round * STEP;
    return ALONG_K ? Place::offset(other, slot) : Place::offset(slot, other);
  }

  MEMBER void fetch(const Line& line, const Depth& depth, int round, int i, T* stage) {
    if constexpr (COPIED) {
      const Source<T> source = operand.source(line, depth);
      copy_async<VECTOR * sizeof(T)>(stage + offset(round), source.address, source.valid);
    } else {
      values[round][i] = operand.load(line, depth);
    }
  }
};

// The sums of a tile, spread over the threads of a block: each has RUNS runs of columns, RUN_STEP apart from
// first_column on, in some rows; threads with the same columns are row groups, M / 8 of them where N >= 64.
template <typename T, int M, int N>
struct Sums;

// Each thread has 8 rows, in two runs of four, and N / 16 columns, in runs of four; of narrow tiles 2 or 4 rows and
// four columns.
template <int M, int N>
struct Sums<float, M, N> {
  static constexpr int RUN = 4, RUNS = N < 64 ? 1 : N / 64, RUN_STEP = 64;
  static constexpr int ACROSS = N / RUN / RUNS, ROWS = ACROSS / 2, PARTS = (ROWS + 3) / 4, ROW_RUN = ROWS / PARTS;
  float sums[ROWS][RUNS][RUN];

  DEVICE int first_column() { return threadIdx.x % ACROSS * RUN; }
  DEVICE int row_group() { return threadIdx.x / ACROSS; }

  template <class A, class B>
  MEMBER void add_stage(const float* a, const float* b) {
    const float* rows = a + row_group() * ROW_RUN;
    const float* columns = b + first_column();
#pragma unroll
    for (int k = 0; k < A::DEPTH; ++k) {
      float left[PARTS][ROW_RUN], right[RUNS][RUN];
#pragma unroll
      for (int part = 0; part < PARTS; ++part) load_floats(left[part], rows + A::offset(part * (M / 2), k));
#pragma unroll
      for (int run = 0; run < RUNS; ++run) load_floats(right[run], columns + B::offset(run * RUN_STEP, k));
#pragma unroll
      for (int i = 0; i < ROWS; ++i)
#pragma unroll
        for (int run = 0; run < RUNS; ++run)
#pragma unroll
          for (int j = 0; j < RUN; ++j)
            sums[i][run][j] = fmaf(left[i / ROW_RUN][i % ROW_RUN], right[run][j], sums[i][run][j]);
    }
  }

  MEMBER void clear() {
#pragma unroll
    for (int i = 0; i < ROWS * RUNS * RUN; ++i) sums[i / (RUNS * RUN)][i / RUN % RUNS][i % RUN] = 0;
  }

  template <class F>
  MEMBER void shift(F offset) {
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
      const float of_row = offset(row_at(i));
#pragma unroll
      for (int j = 0; j < RUNS * RUN; ++j) sums[i][j / RUN][j % RUN] += of_row;
    }
  }

  template <class Where, class Use>
  MEMBER void each(Where where, Use use) const {
    const int column = first_column();
#pragma unroll
    for (int run = 0; run < RUNS; ++run) {
      const auto place = where(column + run * RUN_STEP);
#pragma unroll
      for (int i = 0; i < ROWS; ++i) use(row_at(i), place, sums[i][run]);
    }
  }

 private:
  DEVICE int row_at(int i) { return row_group() * ROW_RUN + i / ROW_RUN * (M / 2) + i % ROW_RUN; }
};

// Each warp has 64 rows and a quarter of the columns, as 16 x 8 tiles of tensor-core instructions; of narrow tiles 16
// columns, and 16 rows for each warp that shares these.
template <typename T, int M, int N>
struct Sums {
  static constexpr int ACROSS = N < 64 ? N / 16 : 4, ROWS = ACROSS, COLUMNS = N / ACROSS / 8;
  static constexpr int RUN = 2, RUNS = COLUMNS, RUN_STEP = 8, VALUE = sizeof(T);
  float sums[ROWS][COLUMNS][4];

  DEVICE int first_column() { return threadIdx.x / 32 % ACROSS * (N / ACROSS) + threadIdx.x % 4 * 2; }
  DEVICE int row_group() { return threadIdx.x / (32 * ACROSS) * 8 + threadIdx.x % 32 / 4; }

  template <class A, class B>
  MEMBER void add_stage(const T* a, const T* b) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < A::DEPTH; k += 16) {
      // Each lane gives a row of 8: of matrix lane / 8. Of A the matrices go down the lines first, of B along k first.
      const SharedAddress rows =
          row_of_matrix<A>(a, warp / ACROSS * (16 * ROWS) + lane / 8 % 2 * 8, k + lane / 16 * 8, lane % 8);
      const SharedAddress columns =
          row_of_matrix<B>(b, warp % ACROSS * (N / ACROSS) + lane / 16 * 8, k + lane / 8 % 2 * 8, lane % 8);
      unsigned left[ROWS][4];
#pragma unroll
      for (int i = 0; i < ROWS; ++i) load_fragment<A>(left[i], rows + A::offset(i * 16, 0) * VALUE);
#pragma unroll
      for (int j = 0; j < COLUMNS; j += 2) {
        unsigned right[4];
        load_fragment<B>(right, columns + B::offset(j * 8, 0) * VALUE);
        const unsigned first[2] = {right[0], right[1]}, second[2] = {right[2], right[3]};
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
          multiply_tiles<T>(sums[i][j], left[i], first);
          multiply_tiles<T>(sums[i][j + 1], left[i], second);
        }
      }
    }
  }

  MEMBER void clear() {
#pragma unroll
    for (int i = 0; i < ROWS * COLUMNS * 4; ++i) sums[i / (COLUMNS * 4)][i / 4 % COLUMNS][i % 4] = 0;
  }

  template <class F>
  MEMBER void shift(F offset) {
    const int row = first_row();
#pragma unroll
    for (int i = 0; i < ROWS * 2; ++i) {
      const float of_row = offset(row + i * 8);
#pragma unroll
      for (int j = 0; j < COLUMNS * 2; ++j) sums[i / 2][j / 2][i % 2 * 2 + j % 2] += of_row;
    }
  }

  template <class Where, class Use>
  MEMBER void each(Where where, Use use) const {
    const int row = first_row(), column = first_column();
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) {
      const auto place = where(column + j * RUN_STEP);
#pragma unroll
      for (int i = 0; i < ROWS * 2; ++i) {
        const float run[RUN] = {sums[i / 2][j][i % 2 * 2], sums[i / 2][j][i % 2 * 2 + 1]};
        use(row + i * 8, place, run);
      }
    }
  }

 private:
  DEVICE int first_row() { return threadIdx.x / (32 * ACROSS) * (16 * ROWS) + threadIdx.x % 32 / 4; }

  template <class Place>
  DEVICE SharedAddress row_of_matrix(const T* stage, int line, int depth, int row) {
    const int offset = Place::BY_LINE ? Place::offset(line + row, depth) : Place::offset(line, depth + row);
    return shared_address(stage + offset);
  }

  template <class Place>
  DEVICE void load_fragment(unsigned (&registers)[4], SharedAddress row) {
    if constexpr (Place::BY_LINE)
      load_matrices(registers, row);
    else
      load_matrices_transposed(registers, row);
  }
};

// A tile of M x N sums in a block of THREADS.
template <typename T, int M, int N>
struct Product : Sums<T, M, N> {
  static_assert((M == 64 || M == 128) && (N == 16 || N == 32 || N == 64 || N == 128), "no tile has this size");
  static constexpr int THREADS = 2 * M, BYTES = 160 * (M + N) + (N < 64 ? 1024 : 0);

  // Calls use(row, place, sums) for each run of this thread, where place = where(column) is worked out once for all
  // rows.
  template <class Where, class Use>
  MEMBER void each(Where where, Use use) const {
    Sums<T, M, N>::each(where, use);
  }

  // Calls use(row, column, sums) for each run of this thread.
  template <class Use>
  MEMBER void each(Use use) const {
    Sums<T, M, N>::each([](int column) { return column; }, use);
  }

  // sums += A[., first..last) B[first..last, .); `shared` is the block's, aligned to 16 bytes.
  template <class A, class B>
  MEMBER void add(const A& a, const B& b, int first, int last, T* shared) {
    using Rows = Stage<T, M, A::ALONG_K>;
    using Columns = Stage<T, N, B::ALONG_K>;
    constexpr int COLUMNS_AT = Rows::BYTES / sizeof(T), NEXT = COLUMNS_AT + Columns::BYTES / sizeof(T);
    if (first >= last) return;
    __syncthreads();  // What the block last used its shared memory for is done.
    Loader<T, M, THREADS, A> rows(a, shared);
    Loader<T, N, THREADS, B> columns(b, shared + COLUMNS_AT);
    rows.prepare(first, shared);
    columns.prepare(first, shared + COLUMNS_AT);
    rows.prepare(first + Rows::DEPTH, shared + NEXT);
    columns.prepare(first + Rows::DEPTH, shared + NEXT + COLUMNS_AT);
    if constexpr (is_tabled<A>(0) || is_tabled<B>(0)) __syncthreads();
    rows.fetch(first, shared);
    columns.fetch(first, shared + COLUMNS_AT);
    rows.keep(shared);
    columns.keep(shared + COLUMNS_AT);
    int now = 0;
    for (int k = first; k < last; k += Rows::DEPTH) {
      commit_copies();
      wait_for_copies<0>();
      // All have stored their part of this stage, and none multiplies the one before, which is overwritten now.
      __syncthreads();
      const int next = NEXT - now;
      const bool more = k + Rows::DEPTH < last;
      if (more) {
        rows.prepare(k + 2 * Rows::DEPTH, shared + now);
        columns.prepare(k + 2 * Rows::DEPTH, shared + now + COLUMNS_AT);
        rows.fetch(k + Rows::DEPTH, shared + next);
        columns.fetch(k + Rows::DEPTH, shared + next + COLUMNS_AT);
      }
      this->template add_stage<Rows, Columns>(shared + now, shared + now + COLUMNS_AT);
      if (more) {
        rows.keep(shared + next);
        columns.keep(shared + next + COLUMNS_AT);
      }
      now = next;
    }
  }
};
