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

// One head of one image.
template <typename Word>
struct Head {
    const Word *kept;  // of all panels
    float *o;          // panels of [heads][width][kPanel]
    Layout layout;
    long first;  // lane of the image's first token
    int tokens, number;
    long end() const { return first + (tokens + kLanes - 1) / kLanes * kLanes; }
    int lanes() const { return int(end() - first); }
};

class Attention {
  public:
    static constexpr int R = kLanes == 16 ? 8 : 4, Most = kLanes == 16 ? 3 : 2;

    Attention(const BlockSpec &s, int inner)
        : heads(s.heads), width(inner / s.heads), scale_(s.scale), query_(s.query), key_(s.key),
          shares_(s.probabilities), value_(s.value) {}

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
        const Steps q{scale_ / query_.scale, query_.zero_point}, k{1 / key_.scale, key_.zero_point};
        const Steps v{1 / value_.scale, value_.zero_point};
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

    template <typename Word>
    void run(const Head<Word> &head, Scratch &mine) const {
        if constexpr (std::is_same_v<Word, int32_t>) sums_of_keys(head, mine);
        head.layout.in_panels(head.first, head.end(), [&](long lane, int count) {
            in_groups<Most>(count / kLanes, [&](int u, auto vectors) {
                queries<decltype(vectors)::value>(head, lane + u * kLanes, mine);
            });
        });
    }

  private:
    static constexpr int32_t kTurned = int32_t(0x80808080);  // the sign bits of a word's bytes
    static constexpr int32_t kOnes = 0x01010101;

    int groups() const { return (width + kPerWord - 1) / kPerWord; }
    template <typename Word>
    int depth() const { return std::is_same_v<Word, float> ? width : groups(); }

    // Rows of queries (part 0), keys (1) or, of floats, values (2), at a lane.
    template <typename Word>
    const Word *rows(const Head<Word> &head, long lane, int part) const {
        const size_t row = (size_t(part) * heads + head.number) * depth<Word>();
        return head.kept + head.layout.panel(lane) * kept() + row * kPanel + head.layout.within(lane);
    }
    const float *values(const Head<float> &head, long lane) const { return rows(head, lane, 2); }
    const int32_t *values(const Head<int32_t> &head, long lane) const {
        const size_t bytes = size_t(head.number) * width * kPanel + head.layout.within(lane);
        return head.kept + head.layout.panel(lane) * kept() + 2 * size_t(heads) * groups() * kPanel + bytes / kPerWord;
    }

    // zq sum_d k of every key.
    void sums_of_keys(const Head<int32_t> &head, Scratch &mine) const {
        int32_t *sums = at_least(mine.sums, head.lanes());
        for (long lane = head.first; lane < head.end(); lane += kLanes) {
            const int32_t *key = rows(head, lane, 1);
            Ints sum = all(-128 * kPerWord * groups());
            for (int g = 0; g < groups(); g++) sum = add_product(sum, load(key + g * kPanel) ^ kTurned, kOnes);
            store(sums + (lane - head.first), sum * query_.zero_point);
        }
    }

    // Some vectors of queries, from a lane on.
    template <int U, typename Word>
    void queries(const Head<Word> &head, long lane, Scratch &mine) const {
        constexpr int S = U * kLanes;  // stride of scores and shares
        constexpr bool integers = std::is_same_v<Word, int32_t>;
        const Word *query = rows(head, lane, 0);
        float *shares = at_least(mine.shares, size_t(head.lanes()) * S);
        Word *scores;
        if constexpr (integers) scores = at_least(mine.scores, size_t(head.lanes()) * S);
        else scores = shares;
        Vector<Word> most[U];
        for (int u = 0; u < U; u++) most[u] = all(integers ? Word(-2147483647) : Word(-3e38));
        head.layout.in_panels(head.first, head.end(), [&](long at, int count) {
            const Word *key = rows(head, at, 1);
            for (int b = 0; b < count; b += R) {
                Vector<Word> sum[R][U] = {};
                add_products<kPanel, 1, kPanel>(sum, key + b, query, depth<Word>());
                const int token = int(at - head.first) + b;
                for (int r = 0; r < R && token + r < head.tokens; r++)
                    for (int u = 0; u < U; u++) {
                        if constexpr (integers) sum[r][u] -= mine.sums[token + r];
                        most[u] = larger(most[u], sum[r][u]);
                        store(scores + size_t(token + r) * S + u * kLanes, sum[r][u]);
                    }
            }
        });
        Floats one[U];  // over the sum of the exponentials
        softmax<U>(scores, most, kLog2E * (integers ? query_.scale * key_.scale : scale_), head.tokens, shares, one);
        const size_t row = (head.layout.panel(lane) * heads + head.number) * width;
        mix(head, shares, one, head.o + row * kPanel + head.layout.within(lane), mine);
    }

    // Scores to exponentials, [n][U vectors]; `factor` of scores makes powers of two.
    template <int U, typename Word>
    static void softmax(const Word *scores, const Vector<Word> (&most)[U], float factor, int n, float *shares,
                        Floats (&one)[U]) {
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
    void mix(const Head<float> &head, const float *shares, const Floats (&one)[U], float *to, Scratch &) const {
        in_bands([&](int d, auto band) {
            constexpr int B = decltype(band)::value;
            Floats sum[B][U] = {};
            head.layout.in_panels(head.first, head.first + head.tokens, [&](long at, int count) {
                const float *value = values(head, at) + d * kPanel;
                add_products<1, kPanel, U * kLanes>(sum, value, shares + (at - head.first) * U * kLanes, count);
            });
            for (int b = 0; b < B; b++)
                for (int u = 0; u < U; u++) store(to + (d + b) * kPanel + u * kLanes, sum[b][u] * one[u]);
        });
    }

    template <int U>
    void mix(const Head<int32_t> &head, const float *shares, const Floats (&one)[U], float *to, Scratch &mine) const {
        constexpr int S = U * kLanes;
        const int32_t zero = value_.zero_point - 128;
        const int32_t *words = mine.scores.data();  // the scores are over
        Ints total[U];
        round_shares(shares, one, head.tokens, mine.scores.data(), total);
        in_bands([&](int d, auto band) {
            constexpr int B = decltype(band)::value;
            Ints sum[B][U] = {};
            int32_t rest[B] = {};  // sum_t (v - zv)
            head.layout.in_panels(head.first, head.first + head.tokens, [&](long at, int count) {
                const int32_t *value = values(head, at) + d * kPanel / kPerWord;
                const int32_t *share = words + (at - head.first) / kPerWord * S;
                add_products<1, kPanel / kPerWord, S>(sum, value, share, (count + kPerWord - 1) / kPerWord);
                if (!shares_.zero_point) return;
                const auto *bytes = reinterpret_cast<const int8_t *>(value);
                for (int b = 0; b < B; b++)
                    for (int t = 0; t < count; t++) rest[b] += bytes[b * kPanel + t] - zero;
            });
            for (int b = 0; b < B; b++)
                for (int u = 0; u < U; u++) {
                    const Ints exact = sum[b][u] - total[u] * zero - rest[b] * shares_.zero_point;
                    store(to + (d + b) * kPanel + u * kLanes, floats(exact) * (shares_.scale * value_.scale));
                }
        });
    }

    // Shares of n tokens to words [ceil(n / 4)][U vectors], with zeros at the end, and their sums.
    template <int U>
    void round_shares(const float *shares, const Floats (&one)[U], int n, int32_t *words, Ints (&total)[U]) const {
        constexpr int S = U * kLanes;
        const Steps steps{1 / shares_.scale, shares_.zero_point};
        for (int u = 0; u < U; u++) {
            total[u] = Ints{};
            const auto normalized = [&](Floats z) { return z * one[u]; };
            for (int i = 0; i < n; i += kPerWord) {
                const Ints word = word_of(steps, shares + size_t(i) * S + u * kLanes, S, n - i, normalized);
                total[u] = add_product(total[u], word, kOnes);
                store(words + size_t(i) / kPerWord * S + u * kLanes, word);
            }
        }
    }

    float scale_;
    Range query_, key_, shares_, value_;
};
