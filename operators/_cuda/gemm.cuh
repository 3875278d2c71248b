// One block's tile of a matrix product, sums[M x N] += A[M x K] B[K x N]: float by strict multiply-adds, 16 bits on
// tensor cores with float sums. What A and B are is up to the kernel, so a convolution never writes out its windows.
//
//   using Block = Product<T, 128, 64>;                       // M x N: M is 64 or 128, N is 64 or 128
//   __global__ void __launch_bounds__(Block::THREADS) kernel(const P p) {  // one-dimensional blocks of 2 * M threads
//     SHARED_MEMORY(T, shared);                              // 160 * (M + N) bytes, whatever the type
//     Block product;
//     product.clear();
//     product.add(Filters<T>{...}, Windows<T>{...}, 0, depth, shared);        // all threads of the block; k from 0
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
//     struct Line {...};                      // what is known of one line, worked out once
//     struct Depth {...};                     // what is known of one k, worked out once per k and thread
//     MEMBER Line line(int i) const;
//     MEMBER Depth depth(int k) const;
//     MEMBER Vector<T, VECTOR> load(const Line&, const Depth&) const;         // where not COPIED
//     MEMBER Source<T> source(const Line&, const Depth&) const;               // where COPIED
//   };
//
// With VECTOR > 1 only every VECTOR-th line (or k) is asked for, the first of each vector, and sources are aligned to
// the vector. `load` may compute what it returns: a mixture of several filters, a masked or scaled gradient.
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

// The operand that is a matrix in memory: of `lines` x `depths`, rows of `pitch` values along k or along the lines.
template <typename T, int VECTOR_, bool ALONG_K_>
struct Matrix {
  static constexpr bool ALONG_K = ALONG_K_, COPIED = VECTOR_ * sizeof(T) >= 4 && (sizeof(T) == 2 || !ALONG_K);
  static constexpr int VECTOR = VECTOR_;
  const T* values;
  int lines, depths, pitch;

  struct Line {
    const T* values;
    int depths;  // 0 beyond the matrix
  };
  typedef int Depth;

  MEMBER Line line(int i) const {
    return {values + static_cast<long long>(i) * (ALONG_K ? pitch : 1), i < lines ? depths : 0};
  }
  MEMBER Depth depth(int k) const { return k; }
  MEMBER Source<T> source(const Line& line, Depth k) const {
    const bool valid = k < line.depths;
    return {valid ? line.values + (ALONG_K ? k : static_cast<long long>(k) * pitch) : values, valid};
  }
  MEMBER Vector<T, VECTOR> load(const Line& line, Depth k) const {
    const Source<T> from = source(line, k);
    return from.valid ? load_vector<T, VECTOR>(from.address) : zero_vector<T, VECTOR>();
  }
};

// How one operand's part of a stage lies in shared memory: along k in rows of a line each, or along the lines in rows
// of a k each. The padding puts the 16-byte pieces of neighbouring rows into different banks.
template <typename T, int LINES, bool ALONG_K>
struct Stage {
  static constexpr int DEPTH = sizeof(T) == 4 ? 16 : 32, PADDING = 16 / sizeof(T), BYTES = 80 * LINES;
  static constexpr bool BY_LINE = ALONG_K && sizeof(T) == 2;
  static constexpr int PITCH = (BY_LINE ? DEPTH : LINES) + PADDING;
  static_assert(PITCH * (BY_LINE ? LINES : DEPTH) * sizeof(T) <= BYTES, "a stage exceeds the room kept for it");

  DEVICE int offset(int line, int depth) { return BY_LINE ? line * PITCH + depth : depth * PITCH + line; }
};

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

  Operand operand;
  int slot, first;
  typename Operand::Line lines[ALONG_K ? ROUNDS : LOADS];
  Vector<T, VECTOR> values[COPIED ? 1 : ROUNDS][LOADS];

  MEMBER explicit Loader(const Operand& given)
      : operand(given), slot(threadIdx.x % SLOTS * GROUP), first(threadIdx.x / SLOTS) {
#pragma unroll
    for (int i = 0; i < (ALONG_K ? ROUNDS : LOADS); ++i)
      lines[i] = operand.line(ALONG_K ? first + i * STEP : slot + i);
  }

  // Starts to load the stage that begins at `k`.
  MEMBER void fetch(int k, T* stage) {
    if constexpr (ALONG_K) {
#pragma unroll
      for (int i = 0; i < LOADS; ++i) {
        const typename Operand::Depth depth = operand.depth(k + slot + i);
#pragma unroll
        for (int round = 0; round < ROUNDS; ++round) fetch(lines[round], depth, round, i, stage);
      }
    } else {
#pragma unroll
      for (int round = 0; round < ROUNDS; ++round) {
        const typename Operand::Depth depth = operand.depth(k + first + round * STEP);
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
            stage[Place::offset(first + round * STEP, slot + i)] = value_of(T{}, values[round][0].word, i);
        } else if constexpr (LOADS == 2) {
          const unsigned low = values[round][0].word[0], high = values[round][1].word[0];
          store_vector<T, 2>(stage + offset(round), {{low | high << 16}});
        } else {
          store_vector<T, VECTOR>(stage + offset(round), values[round][0]);
        }
      }
    }
  }

 private:
  MEMBER int offset(int round) const {
    const int other = first + round * STEP;
    return ALONG_K ? Place::offset(other, slot) : Place::offset(slot, other);
  }

  MEMBER void fetch(const typename Operand::Line& line, const typename Operand::Depth& depth, int round, int i,
                    T* stage) {
    if constexpr (COPIED) {
      const Source<T> source = operand.source(line, depth);
      copy_async<VECTOR * sizeof(T)>(stage + offset(round), source.address, source.valid);
    } else {
      values[round][i] = operand.load(line, depth);
    }
  }
};

// The sums of a tile, spread over the threads of a block: each has RUNS runs of columns, RUN_STEP apart from
// first_column on, in some rows; threads with the same columns are M / 8 row groups.
template <typename T, int M, int N>
struct Sums;

// Each thread has 8 rows, in two runs of four, and N / 16 columns, in runs of four.
template <int M, int N>
struct Sums<float, M, N> {
  static constexpr int RUN = 4, RUNS = N / 64, RUN_STEP = 64;
  float sums[8][RUNS][RUN];

  DEVICE int first_column() { return threadIdx.x % 16 * 4; }
  DEVICE int row_group() { return threadIdx.x / 16; }

  template <class A, class B>
  MEMBER void add_stage(const float* a, const float* b) {
    const float* rows = a + threadIdx.x / 16 * 4;
    const float* columns = b + threadIdx.x % 16 * 4;
#pragma unroll
    for (int k = 0; k < A::DEPTH; ++k) {
      float left[2][4], right[RUNS][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) load_floats(left[half], rows + A::offset(half * (M / 2), k));
#pragma unroll
      for (int run = 0; run < RUNS; ++run) load_floats(right[run], columns + B::offset(run * 64, k));
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int run = 0; run < RUNS; ++run)
#pragma unroll
          for (int j = 0; j < RUN; ++j)
            sums[i][run][j] = fmaf(left[i / 4][i % 4], right[run][j], sums[i][run][j]);
    }
  }

  MEMBER void clear() {
#pragma unroll
    for (int i = 0; i < 8 * RUNS * RUN; ++i) sums[i / (RUNS * RUN)][i / RUN % RUNS][i % RUN] = 0;
  }

  template <class F>
  MEMBER void each(F use) const {
    const int row = row_group() * 4, column = first_column();
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int run = 0; run < RUNS; ++run) use(row + i / 4 * (M / 2) + i % 4, column + run * RUN_STEP, sums[i][run]);
  }
};

// Each warp has 64 rows and a quarter of the columns, as 16 x 8 tiles of tensor-core instructions.
template <typename T, int M, int N>
struct Sums {
  static constexpr int RUN = 2, ROWS = 64 / 16, COLUMNS = N / 4 / 8, RUNS = COLUMNS, RUN_STEP = 8, BYTES = sizeof(T);
  float sums[ROWS][COLUMNS][4];

  DEVICE int first_column() { return threadIdx.x / 32 % 4 * (N / 4) + threadIdx.x % 4 * 2; }
  DEVICE int row_group() { return threadIdx.x / 128 * 8 + threadIdx.x % 32 / 4; }

  template <class A, class B>
  MEMBER void add_stage(const T* a, const T* b) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    // Where this lane's row of 8 begins: load_matrices takes matrix lane / 8 from it. Of A the matrices go down the
    // lines first, of B along k first.
    const SharedAddress rows =
        row_of_matrix<A>(a, warp / 4 * 64 + lane / 8 % 2 * 8, lane / 16 * 8, lane % 8);
    const SharedAddress columns =
        row_of_matrix<B>(b, warp % 4 * (N / 4) + lane / 16 * 8, lane / 8 % 2 * 8, lane % 8);
#pragma unroll
    for (int k = 0; k < A::DEPTH; k += 16) {
      unsigned left[ROWS][4];
#pragma unroll
      for (int i = 0; i < ROWS; ++i) load_fragment<A>(left[i], rows + A::offset(i * 16, k) * BYTES);
#pragma unroll
      for (int j = 0; j < COLUMNS; j += 2) {
        unsigned right[4];
        load_fragment<B>(right, columns + B::offset(j * 8, k) * BYTES);
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
  MEMBER void each(F use) const {
    const int row = threadIdx.x / 128 * 64 + threadIdx.x % 32 / 4, column = first_column();
#pragma unroll
    for (int i = 0; i < ROWS * 2; ++i)
#pragma unroll
      for (int j = 0; j < COLUMNS; ++j) {
        const float run[RUN] = {sums[i / 2][j][i % 2 * 2], sums[i / 2][j][i % 2 * 2 + 1]};
        use(row + i * 8, column + j * RUN_STEP, run);
      }
  }

 private:
  template <class Place>
  DEVICE SharedAddress row_of_matrix(const T* stage, int line, int depth, int row) {
    return shared_address(stage + Place::offset(line, depth) + row * Place::PITCH);
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
  static_assert((M == 64 || M == 128) && (N == 64 || N == 128), "a tile is 64 or 128 wide and high");
  static constexpr int THREADS = 2 * M;

  // sums += A[., first..last) B[first..last, .); `shared` is the block's, aligned to 16 bytes.
  template <class A, class B>
  MEMBER void add(const A& a, const B& b, int first, int last, T* shared) {
    using Rows = Stage<T, M, A::ALONG_K>;
    using Columns = Stage<T, N, B::ALONG_K>;
    constexpr int COLUMNS_AT = Rows::BYTES / sizeof(T), NEXT = COLUMNS_AT + Columns::BYTES / sizeof(T);
    if (first >= last) return;
    Loader<T, M, THREADS, A> rows(a);
    Loader<T, N, THREADS, B> columns(b);
    __syncthreads();  // What the block last used its shared memory for is done.
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
