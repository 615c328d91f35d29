// Weight times activations: y[out][P] = W[out][in] x[in][P] + b for a panel of P tokens, with what follows fused in.
//
// A vector runs along tokens, so one weight meets P of them and zeros are left out, whatever their pattern.
//
//   Dense    rows in bands of R, stored [band][in][R]: R x U accumulators stay in registers.
//   Sparse   non-zeros as (where their input row starts, value). Inputs come in blocks that stay in the first-level
//            cache; inside a block rows of equal count stand together, two at a time, so that inner loops have fixed
//            trip counts.
//   Integer  the same with groups of four inputs as one 32-bit word of int8 weights; inputs are uint8 [in / 4][P][4].
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

#include "buffer.hpp"

enum class Activation { none, gelu, gelu_tanh, relu, silu };

// What becomes of a sum: activation(sum) + residual, written to y.
struct Epilogue {
    Activation activation = Activation::none;
    const float *residual = nullptr;  // [out][P]; may be y itself

    Floats activate(Floats x) const {
        switch (activation) {
            case Activation::gelu: return gelu(x);
            case Activation::gelu_tanh: return gelu_tanh(x);
            case Activation::relu: return relu(x);
            case Activation::silu: return silu(x);
            default: return x;
        }
    }
};

constexpr int kFirstLevelBytes = 24 * 1024;  // of inputs that stay in the first-level cache

struct Dense {
#if OVIT_LANES == 16
    static constexpr int R = 8;
#else
    static constexpr int R = 4;
#endif
    int out = 0, in = 0;
    Buffer<float> weight;  // [ceil(out / R)][in][R], zeros at the end

    void resize(int out_, int in_) {
        out = out_, in = in_;
        weight.assign(size_t((out + R - 1) / R) * in * R, 0.0f);
    }
    float &at(int row, int k) { return weight[(size_t(row / R) * in + k) * R + row % R]; }

    template <int P>
    void run(const float *x, float *y, const float *bias, Epilogue then) const {
        constexpr int vectors = P / kLanes, U = vectors % 3 == 0 ? 3 : vectors % 2 == 0 ? 2 : 1;
        for (int band = 0; band * R < out; band++) {
            const float *w = weight.data() + size_t(band) * in * R;
            for (int c = 0; c < P; c += U * kLanes) columns<P, U>(w, band * R, x + c, y, c, bias, then);
        }
    }

  private:
    template <int P, int U>
    void columns(const float *w, int row, const float *x, float *y, int c, const float *bias, Epilogue then) const {
        Floats sum[R][U];
        for (int r = 0; r < R; r++)
            for (int u = 0; u < U; u++) sum[r][u] = all(bias && row + r < out ? bias[row + r] : 0.0f);
        for (int k = 0; k < in; k++, w += R, x += P) {
            Floats v[U];
#pragma GCC unroll 4
            for (int u = 0; u < U; u++) v[u] = load(x + u * kLanes);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++)
#pragma GCC unroll 4
                for (int u = 0; u < U; u++) sum[r][u] += w[r] * v[u];
        }
        for (int r = 0; r < R && row + r < out; r++)
            for (int u = 0; u < U; u++) {
                const size_t at = size_t(row + r) * P + c + u * kLanes;
                Floats z = then.activate(sum[r][u]);
                store(y + at, then.residual ? z + load(then.residual + at) : z);
            }
    }
};

// Entries of a sparse matrix, cut into blocks of inputs; in a block, rows by their number of entries.
template <typename Value>
struct Entries {
    struct Entry {
        uint32_t offset;  // in bytes, of the input row inside its block
        Value value;
    };
    struct Run {  // rows of equal count, one after the other
        int count, rows;
        size_t row, entry;  // where they begin
    };
    struct Block {
        int first;  // input (or group of inputs)
        std::vector<Run> runs;
    };
    std::vector<Block> blocks;
    std::vector<int> rows;
    std::vector<Entry> entries;

    // value_of(row, k) is the entry of a row at k, or zero.
    template <typename ValueOf>
    void fill(int out, int in, int block, uint32_t stride, ValueOf value_of) {
        for (int first = 0; first < in || first == 0; first += block) {
            const int last = std::min(in, first + block);
            std::vector<int> count(out, 0), order(out);
            for (int m = 0; m < out; m++)
                for (int k = first; k < last; k++) count[m] += value_of(m, k) != Value{};
            std::iota(order.begin(), order.end(), 0);
            std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return count[a] < count[b]; });
            Block made{first, {}};
            for (int m : order) {
                if (made.runs.empty() || made.runs.back().count != count[m])
                    made.runs.push_back({count[m], 0, rows.size(), entries.size()});
                made.runs.back().rows++;
                rows.push_back(m);
                for (int k = first; k < last; k++)
                    if (const Value v = value_of(m, k); v != Value{}) entries.push_back({(k - first) * stride, v});
            }
            blocks.push_back(std::move(made));
        }
    }
};

struct Sparse {
    int out = 0, in = 0, panel = 0;
    Entries<float> held;

    void fill(const float *weight, int out_, int in_, int panel_) {
        out = out_, in = in_, panel = panel_;
        held.fill(out, in, std::max(16, kFirstLevelBytes / (panel * 4)), panel * 4,
                  [&](int m, int k) { return weight[size_t(m) * in + k]; });
    }

    template <int P>
    void run(const float *x, float *y, const float *bias, Epilogue then) const {
        for (size_t b = 0; b < held.blocks.size(); b++) {
            const auto &block = held.blocks[b];
            const bool first = b == 0, last = b + 1 == held.blocks.size();
            const char *tile = reinterpret_cast<const char *>(x + size_t(block.first) * P);
            for (const auto &run : block.runs) {
                if (!run.count && !first && !last) continue;
                const auto *entry = held.entries.data() + run.entry;
                const int *row = held.rows.data() + run.row;
                int r = 0;
                for (; r + 2 <= run.rows; r += 2, entry += 2 * run.count)
                    together<P, 2>(tile, entry, run.count, row + r, y, first, last, bias, then);
                if (r < run.rows) together<P, 1>(tile, entry, run.count, row + r, y, first, last, bias, then);
            }
        }
    }

  private:
    using Entry = Entries<float>::Entry;
    // The sums so far stand in a buffer of y's shape: y itself, unless the residual is there.
    template <int P, int N>
    static void together(const char *tile, const Entry *entry, int count, const int *row, float *y, bool first,
                         bool last, const float *bias, Epilogue then) {
        constexpr int vectors = P / kLanes, U = vectors > 4 ? vectors / 2 : vectors;
        for (int c = 0; c < P; c += U * kLanes) {
            Floats sum[N][U];
            for (int n = 0; n < N; n++)
                for (int u = 0; u < U; u++)
                    sum[n][u] = first ? start(bias, then, row[n], size_t(row[n]) * P + c + u * kLanes)
                                      : load(y + size_t(row[n]) * P + c + u * kLanes);
            for (int i = 0; i < count; i++)
#pragma GCC unroll 2
                for (int n = 0; n < N; n++) {
                    const Entry &e = entry[n * count + i];
                    const float *x = reinterpret_cast<const float *>(tile + e.offset) + c;
#pragma GCC unroll 4
                    for (int u = 0; u < U; u++) sum[n][u] += e.value * load(x + u * kLanes);
                }
            for (int n = 0; n < N; n++)
                for (int u = 0; u < U; u++)
                    store(y + size_t(row[n]) * P + c + u * kLanes, last ? then.activate(sum[n][u]) : sum[n][u]);
        }
    }
    // A residual comes first, so that y may be where it stands; no layer has both it and an activation.
    static Floats start(const float *bias, const Epilogue &then, int row, size_t at) {
        const Floats b = all(bias ? bias[row] : 0.0f);
        return then.residual ? b + load(then.residual + at) : b;
    }
};

// round(x / scale) + zero_point in [0, 255], ties to even, as QuantizeLinear.
inline Ints steps(Floats x, float scale, int32_t zero_point) {
    const Ints v = nearest(smaller(larger(x / scale, all(-512.0f)), all(512.0f))) + zero_point;
    const Ints low = v < 0 ? Ints{} : v;
    return low > 255 ? all(int32_t(255)) : low;
}

struct Integer {
    int out = 0, in = 0, panel = 0;
    float input_scale = 1.0f;
    int32_t zero_point = 0;
    Buffer<float> scale, shift;  // y = sum * scale + shift, with the zero point of the inputs folded into shift
    Entries<int32_t> held;

    void fill(const int8_t *weight, const float *weight_scale, const float *bias, int out_, int in_, int panel_) {
        out = out_, in = in_, panel = panel_;
        scale.resize(out), shift.resize(out);
        const int groups = (in + 3) / 4;
        for (int m = 0; m < out; m++) {
            int64_t sum = 0;
            for (int k = 0; k < in; k++) sum += weight[size_t(m) * in + k];
            scale[m] = weight_scale[m] * input_scale;
            shift[m] = float(double(bias ? bias[m] : 0.0f) - double(sum) * zero_point * scale[m]);
        }
        held.fill(out, groups, std::max(16, kFirstLevelBytes / (panel * 4)), panel * 4, [&](int m, int g) {
            int8_t word[4] = {0, 0, 0, 0};
            for (int j = 0; j < 4 && 4 * g + j < in; j++) word[j] = weight[size_t(m) * in + 4 * g + j];
            int32_t value;
            std::memcpy(&value, word, 4);
            return value;
        });
    }

    // As `steps`; [in][P] to [ceil(in / 4)][P][4].
    template <int P>
    void quantize(const float *x, uint8_t *q) const {
        for (int k = 0; k < in; k += 4)
            for (int p = 0; p < P; p += kLanes) {
                Ints word{};
                for (int j = 0; j < 4 && k + j < in; j++)
                    word |= steps(load(x + size_t(k + j) * P + p), input_scale, zero_point) << (8 * j);
                *reinterpret_cast<Ints *>(q + (size_t(k / 4) * P + p) * 4) = word;
            }
    }

    template <int P>
    void run(const uint8_t *x, float *y, Epilogue then, int32_t *sums) const {
        for (size_t b = 0; b < held.blocks.size(); b++) {
            const auto &block = held.blocks[b];
            const uint8_t *tile = x + size_t(block.first) * P * 4;
            for (const auto &run : block.runs) {
                if (!run.count && b) continue;
                const auto *entry = held.entries.data() + run.entry;
                const int *row = held.rows.data() + run.row;
                int r = 0;
                for (; r + 2 <= run.rows; r += 2, entry += 2 * run.count)
                    together<P, 2>(tile, entry, run.count, row + r, sums, b == 0);
                if (r < run.rows) together<P, 1>(tile, entry, run.count, row + r, sums, b == 0);
            }
        }
        for (int m = 0; m < out; m++)
            for (int p = 0; p < P; p += kLanes) {
                const size_t at = size_t(m) * P + p;
                const Ints sum = *reinterpret_cast<const Ints *>(sums + at);
                const Floats z = then.activate(__builtin_convertvector(sum, Floats) * scale[m] + shift[m]);
                store(y + at, then.residual ? z + load(then.residual + at) : z);
            }
    }

  private:
    using Entry = Entries<int32_t>::Entry;
    template <int P, int N>
    static void together(const uint8_t *tile, const Entry *entry, int count, const int *row, int32_t *sums, bool first) {
        constexpr int vectors = P / kLanes, U = vectors > 4 ? vectors / 2 : vectors;
        for (int c = 0; c < P; c += U * kLanes) {
            Ints sum[N][U];
            for (int n = 0; n < N; n++)
                for (int u = 0; u < U; u++)
                    sum[n][u] = first ? Ints{} : *reinterpret_cast<const Ints *>(sums + size_t(row[n]) * P + c + u * kLanes);
            for (int i = 0; i < count; i++)
#pragma GCC unroll 2
                for (int n = 0; n < N; n++) {
                    const Entry &e = entry[n * count + i];
#pragma GCC unroll 4
                    for (int u = 0; u < U; u++)
                        sum[n][u] = add_products(sum[n][u], tile + e.offset + 4 * (c + u * kLanes), e.value);
                }
            for (int n = 0; n < N; n++)
                for (int u = 0; u < U; u++)
                    *reinterpret_cast<Ints *>(sums + size_t(row[n]) * P + c + u * kLanes) = sum[n][u];
        }
    }
};
