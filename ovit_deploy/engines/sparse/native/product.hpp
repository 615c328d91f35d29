// Weight times activations: y[out][tokens] = W[out][in] x[in][tokens] for a panel of tokens, with the bias and, where
// there is one, the residual fused in.
//
// A vector runs along tokens, so one weight meets many of them and zeros are left out, whatever their pattern. Rows of
// a panel stand kPanel words apart; kernels are given some of its vectors, so that few tokens cost little. A word is a
// float, or four inputs in eight bits: the same kernels serve both.
//
//   Dense    rows in bands of R, stored [band][in][R]: R x U sums stay in registers.
//   Sparse   non-zero words as (where their input row starts, value). Inputs come in blocks that stay in the
//            first-level cache; inside a block rows of equal count stand together, two at a time, so that inner loops
//            have fixed trip counts.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <type_traits>

#include "buffer.hpp"

constexpr int kPanel = 112;  // tokens of a panel at most: the more, the less it costs to read a weight
constexpr int kBand = 384;   // output rows of a panel that stay in the second-level cache, with others: 168 KiB
constexpr int kPerWord = 4;  // eight-bit inputs in a word

template <typename Word>
struct VectorOf { using type = Ints; using half = HalfInts; };
template <>
struct VectorOf<float> { using type = Floats; using half = HalfFloats; };
template <typename Word>
using Vector = typename VectorOf<Word>::type;

// How much of a panel's rows is used: vectors, of the last one perhaps the first half only.
struct Filled {
    int vectors;
    bool half = false;
};

// f(first vector, their number as a type) for groups of at most Most of `vectors`.
template <int Most, typename F>
inline void in_groups(int vectors, F f) {
    int first = 0;
    for (; first + Most <= vectors; first += Most) f(first, std::integral_constant<int, Most>());
    if constexpr (Most > 1)
        in_groups<Most - 1>(vectors - first, [&](int after, auto count) { f(first + after, count); });
}

template <int Whole, bool Half>
struct Group {
    static constexpr int whole = Whole;
    static constexpr bool half = Half;
};

// f(n as a type), for n of 1 to Most.
template <int Most, typename F>
inline void with_number(int n, F f) {
    if constexpr (Most > 1)
        if (n < Most) return with_number<Most - 1>(n, f);
    f(std::integral_constant<int, Most>());
}

// f(first vector, a Group) likewise; half a vector comes with the last of them.
template <int Most, typename F>
inline void in_groups(Filled filled, F f) {
    const int last = kHalves && filled.half ? (filled.vectors - 1) / Most * Most : filled.vectors;
    in_groups<Most>(last, [&](int first, auto count) { f(first, Group<decltype(count)::value, false>()); });
    if constexpr (kHalves) {
        if (last == filled.vectors) return;
        if (const int whole = filled.vectors - 1 - last; whole == 0) f(last, Group<0, true>());
        else with_number<Most - 1>(whole, [&](auto count) { f(last, Group<decltype(count)::value, true>()); });
    }
}

// Sums of a row, or what is made of them: vectors along tokens.
template <typename Word, typename Of>
struct Sums {
    Vector<Word> whole[Of::whole ? Of::whole : 1] = {};
    typename VectorOf<Word>::half half = {};

    // f(a vector, where its tokens begin)
    template <typename F>
    void each(F f) {
#pragma GCC unroll 8
        for (int u = 0; u < Of::whole; u++) f(whole[u], u * kLanes);
        if constexpr (Of::half) f(half, Of::whole * kLanes);
    }
    void add(const Word *x, Word w) {
        each([&](auto &sum, int at) { sum = add_product(sum, x + at, w); });
    }
    void take(const Word *from) {
        each([&](auto &sum, int at) { sum = load_as<std::decay_t<decltype(sum)>>(from + at); });
    }
    void put(Word *to) {
        each([&](auto &sum, int at) { store(to + at, sum); });
    }
};

// What becomes of the sums of a row: y = sum * scale + shift, or that added to y.
struct Finish {
    const float *scale;  // of integers
    const float *shift;  // the bias
    bool add = false;

    template <typename Word, typename Of>
    void operator()(Sums<Word, Of> &sums, int row, float *y) const {
        const float b = shift[row], a = std::is_same_v<Word, float> ? 1.0f : scale[row];
        sums.each([&](auto sum, int at) {
            auto z = floats(sum);
            if constexpr (!std::is_same_v<Word, float>) z *= a;
            z += b;
            if (add) z += load_as<decltype(z)>(y + at);
            store(y + at, z);
        });
    }
};

// sum[r][u] += sum over k < count of w[k * Along + r * Across] x[k * Stride + vector u]
template <int Along, int Across, int Stride, int R, int U, typename Word>
inline void add_products(Vector<Word> (&sum)[R][U], const Word *w, const Word *x, int count) {
    for (int k = 0; k < count; k++, w += Along, x += Stride)
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 8
            for (int u = 0; u < U; u++) sum[r][u] = add_product(sum[r][u], x + u * kLanes, w[r * Across]);
}

template <typename Word>
struct Dense {
    static constexpr int R = 6, Most = kLanes == 16 ? 4 : 2;
    int out = 0, in = 0;
    Buffer<Word> weight;  // [ceil(out / R)][in][R], zeros at the end

    void fill(const Word *w, int out_, int in_) {
        out = out_, in = in_;
        weight.assign(size_t(out + R - 1) / R * in * R, Word{});
        for (int m = 0; m < out; m++)
            for (int k = 0; k < in; k++) weight[(size_t(m / R) * in + k) * R + m % R] = w[size_t(m) * in + k];
    }

    void run(const Word *x, float *y, Filled filled, const Finish &finish, Word *) const {
        in_groups<Most>(filled, [&](int first, auto group) {
            const size_t at = size_t(first) * kLanes;
            for (int row = 0; row < out; row += R)
                band<decltype(group)>(weight.data() + size_t(row) * in, x + at, y + at, row, finish);
        });
    }

  private:
    template <typename Of>
    void band(const Word *w, const Word *x, float *y, int row, const Finish &finish) const {
        Sums<Word, Of> sum[R];
        for (int k = 0; k < in; k++, w += R, x += kPanel)
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) sum[r].add(x, w[r]);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
            if (row + r < out) finish(sum[r], row + r, y + size_t(row + r) * kPanel);
    }
};

template <typename Word>
struct Sparse {
    struct Entry {
        uint32_t offset;  // in bytes, of the input row inside its block
        Word value;
    };
    struct Run {  // rows of equal count, one after the other
        int count, rows;
        size_t row, entry;  // where they begin
    };
    struct Block {
        int first;  // input row
        bool begins, ends;  // the sums of its output rows
        std::vector<Run> runs;
    };
    static constexpr int Most = kLanes == 16 ? 7 : 4;
    std::vector<Block> blocks;
    std::vector<int> rows;
    std::vector<Entry> entries;

    // Input rows that are read often must stay in the first-level cache; of others, blocks are larger, so that sums are
    // put aside and taken up again less often.
    void fill(const Word *w, int out, int in) {
        const double density = 1.0 - double(std::count(w, w + size_t(out) * in, Word{})) / (double(out) * in);
        const int block = density > 0.3 ? 56 : 112;  // 25 or 49 KiB
        for (int row = 0; row < out; row += kBand)
            for (int first = 0; first < in; first += block)
                add(w, in, row, std::min(out, row + kBand), first, std::min(in, first + block));
    }

    // Sums so far stand in `partial`, of y's shape; it may be y itself unless the result is added there.
    void run(const Word *x, float *y, Filled filled, const Finish &finish, Word *partial) const {
        for (const Block &block : blocks)
            in_groups<Most>(filled, [&](int first, auto group) {
                const size_t at = size_t(first) * kLanes;
                const char *tile = reinterpret_cast<const char *>(x + size_t(block.first) * kPanel + at);
                run_block<decltype(group)>(block, tile, y + at, partial + at, finish);
            });
    }

  private:
    // Outputs [row, end) of inputs [first, last).
    void add(const Word *w, int in, int row, int end, int first, int last) {
        std::vector<int> count(end - row), order(end - row);
        for (int m = row; m < end; m++) {
            const Word *of_row = w + size_t(m) * in;
            count[m - row] = last - first - int(std::count(of_row + first, of_row + last, Word{}));
        }
        std::iota(order.begin(), order.end(), row);
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return count[a - row] < count[b - row]; });
        Block made{first, first == 0, last == in, {}};
        for (int m : order) {
            if (made.runs.empty() || made.runs.back().count != count[m - row])
                made.runs.push_back({count[m - row], 0, rows.size(), entries.size()});
            made.runs.back().rows++;
            rows.push_back(m);
            for (int k = first; k < last; k++)
                if (const Word v = w[size_t(m) * in + k]; v != Word{})
                    entries.push_back({uint32_t((k - first) * kPanel * sizeof(Word)), v});
        }
        blocks.push_back(std::move(made));
    }

    template <typename Of>
    void run_block(const Block &block, const char *tile, float *y, Word *partial, const Finish &finish) const {
        for (const Run &run : block.runs) {
            if (!run.count && !block.begins && !block.ends) continue;
            const Entry *entry = entries.data() + run.entry;
            const int *row = rows.data() + run.row;
            int r = 0;
            for (; r + 2 <= run.rows; r += 2, entry += 2 * run.count)
                together<2, Of>(tile, entry, run.count, row + r, y, partial, block, finish);
            if (r < run.rows) together<1, Of>(tile, entry, run.count, row + r, y, partial, block, finish);
        }
    }

    template <int N, typename Of>
    static void together(const char *tile, const Entry *entry, int count, const int *row, float *y, Word *partial,
                         const Block &block, const Finish &finish) {
        Sums<Word, Of> sum[N];
        if (!block.begins)
#pragma GCC unroll 2
            for (int n = 0; n < N; n++) sum[n].take(partial + size_t(row[n]) * kPanel);
        for (int i = 0; i < count; i++)
#pragma GCC unroll 2
            for (int n = 0; n < N; n++) {
                const Entry &e = entry[n * count + i];
                sum[n].add(reinterpret_cast<const Word *>(tile + e.offset), e.value);
            }
#pragma GCC unroll 2
        for (int n = 0; n < N; n++) {
            const size_t at = size_t(row[n]) * kPanel;
            if (block.ends) finish(sum[n], row[n], y + at);
            else sum[n].put(partial + at);
        }
    }
};
