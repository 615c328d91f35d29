// Softmax attention of one head of one image, on tokens as the product before left them: keys and values are read where
// they are, a number at a time, and meet vectors of queries.
//
// A panel of what is kept of qkv is [3][heads][width][kPanel] in floats. In integers it is q and k as words,
// [2][heads][ceil(width / 4)][kPanel], k with its sign bits turned, and then bytes v[heads][width][kPanel], signed too.
// With zq, zk, zp, zv the zero points,
//
//     sum_d (q - zq)(k - zk) = sum_d q k - zq sum_d k + what is the same for all keys, and so nothing to a softmax
//     sum_t (p - zp)(v - zv) = sum_t p v - zv sum_t p - zp sum_t (v - zv)
#pragma once

#include "linear.hpp"

// Lanes over panels.
struct Layout {
    int lanes = kPanel;  // that are used in a panel, whole vectors
    size_t panel(long lane) const { return lane / lanes; }
    int within(long lane) const { return int(lane % lanes); }

    // f(lane, count) for the parts of [first, end) that stand in one panel.
    template <typename F>
    void in_panels(long first, long end, F f) const {
        for (long lane = first, next; lane < end; lane = next) {
            next = std::min(end, lane - within(lane) + lanes);
            f(lane, int(next - lane));
        }
    }
};

class Attention {
  public:
    static constexpr int R = kLanes == 16 ? 8 : 4, Most = kLanes == 16 ? 3 : 2;

    Attention(const BlockSpec &s, int inner)
        : heads(s.heads), width(inner / s.heads), scale_(s.scale), query_(s.query), key_(s.key), shares_(s.probabilities),
          value_(s.value) {}

    int heads, width;
    bool is_integer() const { return query_.scale > 0; }
    // Words of a panel.
    size_t kept() const {
        if (!is_integer()) return size_t(3) * heads * width * kPanel;
        const size_t words = size_t(heads) * (2 * groups() * kPanel + width * kPanel / kPerWord);
        return (words + kAlignment - 1) / kAlignment * kAlignment;
    }

    // Floats [3][heads][width][kPanel] to words and bytes of a panel.
    void quantize(const float *x, int32_t *panel, int vectors) const {
        const Steps q{scale_ / query_.scale, query_.zero_point}, k{1 / key_.scale, key_.zero_point}, v{1 / value_.scale, value_.zero_point};
        const size_t inner = size_t(heads) * width;
        const auto same = [](Floats z) { return z; };
        auto *bytes = reinterpret_cast<int8_t *>(panel + 2 * size_t(heads) * groups() * kPanel);
        for (int h = 0; h < heads; h++)
            for (int g = 0; g < groups(); g++)
                for (int u = 0; u < vectors * kLanes; u += kLanes) {
                    const float *row = x + (size_t(h) * width + 4 * g) * kPanel + u;
                    int32_t *to = panel + (size_t(h) * groups() + g) * kPanel + u;
                    store(to, word_of(q, row, kPanel, width - 4 * g, same));
                    store(to + size_t(heads) * groups() * kPanel,
                          word_of(k, row + inner * kPanel, kPanel, width - 4 * g, same) ^ kTurned);
                }
        for (size_t d = 0; d < inner; d++)
            for (int u = 0; u < vectors * kLanes; u += kLanes)
                *reinterpret_cast<Bytes *>(bytes + d * kPanel + u) =
                    __builtin_convertvector(v(load(x + (2 * inner + d) * kPanel + u)) - 128, Bytes);
    }

    // Tokens first to first + n of all lanes, to rows of o, whose panels are [heads][width][kPanel].
    template <typename Word>
    void run(const Word *kept_, float *o, Layout layout, long first, int n, int head, Scratch &mine) const {
        const long end = first + (n + kLanes - 1) / kLanes * kLanes;
        if constexpr (std::is_same_v<Word, int32_t>) sums_of_keys(kept_, layout, first, end, head, mine);
        layout.in_panels(first, end, [&](long lane, int count) {
            in_groups<Most>(count / kLanes, [&](int u, auto vectors) {
                queries<decltype(vectors)::value>(kept_, o, layout, first, n, lane + u * kLanes, head, mine);
            });
        });
    }

  private:
    static constexpr int32_t kTurned = int32_t(0x80808080);  // the sign bits of a word's bytes

    int groups() const { return (width + kPerWord - 1) / kPerWord; }
    template <typename Word>
    int depth() const { return std::is_same_v<Word, float> ? width : groups(); }
    template <typename Word>
    const Word *rows(const Word *kept_, Layout layout, long lane, int part, int head) const {
        return kept_ + layout.panel(lane) * kept() + (size_t(part) * heads + head) * depth<Word>() * kPanel + layout.within(lane);
    }
    const int32_t *values(const int32_t *kept_, Layout layout, long lane, int head) const {
        return rows(kept_, layout, 0, 2, 0) + layout.panel(lane) * kept() + (size_t(head) * width * kPanel + layout.within(lane)) / kPerWord;
    }

    void sums_of_keys(const int32_t *kept_, Layout layout, long first, long end, int head, Scratch &mine) const {
        int32_t *sums = at_least(mine.sums, end - first);
        for (long lane = first; lane < end; lane += kLanes) {
            const int32_t *key = rows(kept_, layout, lane, 1, head);
            Ints sum = all(-128 * kPerWord * groups());
            for (int g = 0; g < groups(); g++) sum = add_product(sum, load(key + g * kPanel) ^ kTurned, 0x01010101);
            store(sums + (lane - first), sum * query_.zero_point);
        }
    }

    template <int U, typename Word>
    void queries(const Word *kept_, float *o, Layout layout, long first, int n, long lane, int head, Scratch &mine) const {
        constexpr int S = U * kLanes;  // stride of scores and shares
        const long end = first + (n + kLanes - 1) / kLanes * kLanes;
        const Word *query = rows(kept_, layout, lane, 0, head);
        float *shares = at_least(mine.shares, size_t(end - first) * S);
        Word *scores;
        if constexpr (std::is_same_v<Word, float>) scores = shares;
        else scores = at_least(mine.scores, size_t(end - first) * S);
        Vector<Word> most[U];
        for (int u = 0; u < U; u++) most[u] = all(std::is_same_v<Word, float> ? Word(-3e38) : Word(-2147483647));
        layout.in_panels(first, end, [&](long at, int count) {
            const Word *key = rows(kept_, layout, at, 1, head);
            for (int b = 0; b < count; b += R) {
                Vector<Word> sum[R][U] = {};
                add_products<kPanel, 1, kPanel>(sum, key + b, query, depth<Word>());
                const int token = int(at - first) + b;
                for (int r = 0; r < R && token + r < n; r++)
                    for (int u = 0; u < U; u++) {
                        if constexpr (std::is_same_v<Word, int32_t>) sum[r][u] -= mine.sums[token + r];
                        most[u] = larger(most[u], sum[r][u]);
                        store(scores + size_t(token + r) * S + u * kLanes, sum[r][u]);
                    }
            }
        });
        const float factor = kLog2E * (is_integer() ? query_.scale * key_.scale : scale_);
        Floats one[U];  // over the sum of the exponentials
        softmax<U>(scores, most, factor, n, shares, one);
        float *to = o + (layout.panel(lane) * heads + head) * width * kPanel + layout.within(lane);
        if constexpr (std::is_same_v<Word, float>) mix(kept_, layout, shares, one, first, n, head, to);
        else mix(kept_, layout, shares, one, first, n, head, to, mine);
    }

    // Scores to exponentials, [n][U vectors]; `factor` of scores makes powers of two.
    template <int U, typename Word>
    static void softmax(const Word *scores, const Vector<Word> (&most)[U], float factor, int n, float *shares, Floats (&one)[U]) {
        Floats sum[U] = {};
        for (int i = 0; i < n; i++)
            for (int u = 0; u < U; u++) {
                const size_t at = (size_t(i) * U + u) * kLanes;
                Floats z;
                if constexpr (std::is_same_v<Word, float>) z = load(scores + at) - most[u];
                else z = floats(load(scores + at) - most[u]);
                z = power_of_two(z * factor);
                sum[u] += z;
                store(shares + at, z);
            }
        for (int u = 0; u < U; u++) one[u] = 1.0f / sum[u];
    }

    // Rows d of the head: f(first of R or 1 of them, how many as a type).
    template <typename F>
    void in_bands(F f) const {
        int d = 0;
        for (; d + R <= width; d += R) f(d, std::integral_constant<int, R>());
        for (; d < width; d++) f(d, std::integral_constant<int, 1>());
    }

    template <int U>
    void mix(const float *kept_, Layout layout, const float *shares, const Floats (&one)[U], long first, int n, int head, float *to) const {
        in_bands([&](int d, auto band) {
            constexpr int B = decltype(band)::value;
            Floats sum[B][U] = {};
            layout.in_panels(first, first + n, [&](long at, int count) {
                const float *value = rows(kept_, layout, at, 2, head) + d * kPanel;
                add_products<1, kPanel, U * kLanes>(sum, value, shares + (at - first) * U * kLanes, count);
            });
            for (int b = 0; b < B; b++)
                for (int u = 0; u < U; u++) store(to + (d + b) * kPanel + u * kLanes, sum[b][u] * one[u]);
        });
    }

    template <int U>
    void mix(const int32_t *kept_, Layout layout, const float *shares, const Floats (&one)[U], long first, int n, int head, float *to, Scratch &mine) const {
        constexpr int S = U * kLanes;
        const Steps steps{1 / shares_.scale, shares_.zero_point};
        const int32_t zero = value_.zero_point - 128;
        int32_t *words = mine.scores.data();  // the scores are over
        Ints total[U] = {};
        for (int i = 0; i < n; i += kPerWord)
            for (int u = 0; u < U; u++) {
                const Ints word = word_of(steps, shares + size_t(i) * S + u * kLanes, S, n - i, [&](Floats z) { return z * one[u]; });
                total[u] = add_product(total[u], word, 0x01010101);
                store(words + size_t(i) / kPerWord * S + u * kLanes, word);
            }
        in_bands([&](int d, auto band) {
            constexpr int B = decltype(band)::value;
            Ints sum[B][U] = {};
            int32_t rest[B] = {};  // sums of values
            layout.in_panels(first, first + n, [&](long at, int count) {
                const int32_t *value = values(kept_, layout, at, head) + d * kPanel / kPerWord;
                add_products<1, kPanel / kPerWord, S>(sum, value, words + (at - first) / kPerWord * S, (count + 3) / kPerWord);
                if (!shares_.zero_point) return;
                for (int b = 0; b < B; b++)
                    for (int t = 0; t < count; t++) rest[b] += reinterpret_cast<const int8_t *>(value)[b * kPanel + t] - zero;
            });
            for (int b = 0; b < B; b++)
                for (int u = 0; u < U; u++) {
                    const Ints exact = sum[b][u] - total[u] * zero - rest[b] * shares_.zero_point;
                    store(to + (d + b) * kPanel + u * kLanes, floats(exact) * (shares_.scale * value_.scale));
                }
        });
    }

    float scale_;
    Range query_, key_, shares_, value_;
};
