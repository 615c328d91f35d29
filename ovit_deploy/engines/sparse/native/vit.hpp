// An isotropic vision transformer on panels of P tokens.
//
// The tokens of all images of a batch stand one after the other, P to a panel; a panel is [features][P]. Everything but
// attention looks at one token at a time, so a panel goes through it alone:
//
//     for every block:
//         panel            qkv <- norm1(x)
//         image and head   o <- softmax(scale q k^T) v
//         panel            x <- x + proj(o);  x <- x + fc2(activation(fc1(norm2(x))))
//
// Lanes behind the last token hold numbers that nobody looks at.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <stdexcept>

#include "product.hpp"
#include "team.hpp"

struct Range {  // of uint8 values: (q - zero_point) * scale
    float scale = 0.0f;
    int32_t zero_point = 0;
    bool on() const { return scale > 0; }
};

struct LinearSpec {  // either weight or integers are given
    int32_t out, in;
    const float *weight, *bias;
    const int8_t *integers;
    const float *scale;
    Range input;
};

struct NormSpec {
    int32_t features;
    const float *weight, *bias;
    float epsilon;
};

struct BlockSpec {
    NormSpec norm1, norm2;
    LinearSpec qkv, proj, fc1, fc2;
    int32_t heads, activation;
    float scale;
    Range query, key, probabilities, value;
};

struct ModelSpec {
    int32_t channels, height, width, patch, prefix, features, average;
    const float *prefix_tokens, *position;  // [prefix][features], [patches][features]
};

struct Norm {
    Buffer<float> weight, bias;
    float epsilon = 0;

    Norm() = default;
    explicit Norm(const NormSpec &s)
        : weight(s.weight, s.weight + s.features), bias(s.bias, s.bias + s.features), epsilon(s.epsilon) {}
    explicit operator bool() const { return !weight.empty(); }

    template <int P>
    void run(const float *x, float *y) const {
        const int features = int(weight.size());
        const float share = 1.0f / features;
        for (int p = 0; p < P; p += kLanes) {
            Floats sum{}, square{};
            for (int d = 0; d < features; d++) sum += load(x + size_t(d) * P + p);
            const Floats mean = sum * share;
            for (int d = 0; d < features; d++) {
                const Floats z = load(x + size_t(d) * P + p) - mean;
                square += z * z;
            }
            const Floats factor = 1.0f / square_root(square * share + epsilon);
            for (int d = 0; d < features; d++) {
                const Floats z = (load(x + size_t(d) * P + p) - mean) * factor;
                store(y + size_t(d) * P + p, z * weight[d] + bias[d]);
            }
        }
    }
};

// What a thread works on.
struct Scratch {
    Buffer<float> normed, hidden, scores, edge;
    Buffer<uint8_t> bytes;
    Buffer<int32_t> sums;
    Dense keys, values;
};

// A linear layer in the form that is fastest for its zeros.
class Linear {
  public:
    explicit Linear(const LinearSpec &s) : out(s.out), in(s.in), bias_(s.bias, s.bias + s.out) {
        if (s.integers) {
            integers_.assign(s.integers, s.integers + size_t(out) * in);
            steps_.assign(s.scale, s.scale + out);
            integer_.input_scale = s.input.scale, integer_.zero_point = s.input.zero_point;
        } else {
            weight_.assign(s.weight, s.weight + size_t(out) * in);
        }
    }

    // `form`: 0 by timing, 1 dense, 2 sparse.
    template <int P>
    void pack(int form) {
        if (is_integer()) {
            integer_.held = {};
            integer_.fill(integers_.data(), steps_.data(), bias_.data(), out, in, P);
            return;
        }
        sparse_.held = {};
        dense_.resize(out, in);
        for (int m = 0; m < out; m++)
            for (int k = 0; k < in; k++) dense_.at(m, k) = weight_[size_t(m) * in + k];
        if (form != 1) sparse_.fill(weight_.data(), out, in, P);
        is_sparse_ = form == 2 || (form == 0 && seconds<P>(sparse_) < seconds<P>(dense_));
        if (is_sparse_) dense_ = Dense();
        else sparse_ = Sparse();
    }

    template <int P>
    void run(const float *x, float *y, Epilogue then, Scratch &work) const {
        if (is_integer()) {
            work.bytes.resize(std::max(work.bytes.size(), size_t(in + 3) / 4 * 4 * P));
            work.sums.resize(std::max(work.sums.size(), size_t(out) * P));
            integer_.quantize<P>(x, work.bytes.data());
            integer_.run<P>(work.bytes.data(), y, then, work.sums.data());
        } else if (is_sparse_) {
            sparse_.run<P>(x, y, bias_.data(), then);
        } else {
            dense_.run<P>(x, y, bias_.data(), then);
        }
    }

    bool is_integer() const { return !integers_.empty(); }
    int form() const { return is_integer() ? 3 : is_sparse_ ? 2 : 1; }
    size_t entries() const { return is_integer() ? integer_.held.entries.size() : sparse_.held.entries.size(); }
    int out, in;

  private:
    template <int P, typename Form>
    double seconds(const Form &form) const {
        Buffer<float> x(size_t(in) * P, 0.5f), y(size_t(out) * P);
        double best = 1e9;
        for (int i = 0; i < 5; i++) {
            const auto start = std::chrono::steady_clock::now();
            form.template run<P>(x.data(), y.data(), bias_.data(), Epilogue{});
            best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        }
        return best;
    }

    Buffer<float> bias_, weight_, steps_;
    Buffer<int8_t> integers_;
    Dense dense_;
    Sparse sparse_;
    Integer integer_;
    bool is_sparse_ = false;
};

struct Block {
    Norm norm1, norm2;
    Linear qkv, proj, fc1, fc2;
    int heads;
    Activation activation;
    float scale;
    Range query, key, probabilities, value;

    explicit Block(const BlockSpec &s)
        : norm1(s.norm1), norm2(s.norm2), qkv(s.qkv), proj(s.proj), fc1(s.fc1), fc2(s.fc2), heads(s.heads),
          activation(Activation(s.activation)), scale(s.scale), query(s.query), key(s.key),
          probabilities(s.probabilities), value(s.value) {}
    int head_width() const { return proj.in / heads; }
};

// What one run needs beside the model; runs at the same time have one each.
struct Workspace {
    Team team;
    std::vector<Scratch> scratch;
    Buffer<float> x, qkv, o;
    explicit Workspace(int threads) : team(threads), scratch(threads) {}
};

class Model {
  public:
    explicit Model(const ModelSpec &s)
        : spec(s), prefix_(s.prefix_tokens, s.prefix_tokens + size_t(s.prefix) * s.features),
          position_(s.position, s.position + size_t(patches()) * s.features) {}

    int patches() const { return (spec.height / spec.patch) * (spec.width / spec.patch); }
    int tokens() const { return spec.prefix + patches(); }
    int classes() const { return heads.front().out; }

    ModelSpec spec;
    std::vector<Linear> embedding, heads;
    std::vector<Block> blocks;
    Norm norm_pre, norm, head_norm;
    int panel = 0, threads = 1;

    void ready(int threads_, int panel_, int form) {
        threads = threads_, panel = panel_;
        at_width([&](auto width) {
            constexpr int P = decltype(width)::value;
            for (Linear *linear : linears()) linear->pack<P>(form);
        });
    }

    std::vector<Linear *> linears() {
        std::vector<Linear *> all{&embedding.front()};
        for (Block &b : blocks) all.insert(all.end(), {&b.qkv, &b.proj, &b.fc1, &b.fc2});
        for (Linear &head : heads) all.push_back(&head);
        return all;
    }

    void run(const float *images, long batch, float *logits) {
        std::unique_ptr<Workspace> work = take();
        at_width([&](auto width) { run_on<decltype(width)::value>(images, batch, logits, *work); });
        give(std::move(work));
    }

  private:
    template <typename F>
    void at_width(F f) {
        switch (panel) {
            case 16: return f(std::integral_constant<int, 16>());
            case 32: return f(std::integral_constant<int, 32>());
            case 48: return f(std::integral_constant<int, 48>());
            case 64: return f(std::integral_constant<int, 64>());
            default: throw std::invalid_argument("panels hold 16, 32, 48 or 64 tokens");
        }
    }

    std::unique_ptr<Workspace> take() {
        std::lock_guard<std::mutex> hold(mutex_);
        if (free_.empty()) return std::make_unique<Workspace>(threads);
        std::unique_ptr<Workspace> work = std::move(free_.back());
        free_.pop_back();
        return work;
    }
    void give(std::unique_ptr<Workspace> work) {
        std::lock_guard<std::mutex> hold(mutex_);
        free_.push_back(std::move(work));
    }

    template <int P>
    void run_on(const float *images, long batch, float *logits, Workspace &work) const {
        const int features = spec.features;
        const long total = batch * tokens(), panels = (total + P - 1) / P;
        work.x.resize(size_t(panels) * features * P);
        size_t hidden = 0;
        for (const Block &block : blocks) hidden = std::max(hidden, size_t(block.fc1.out) * P);
        for (Scratch &mine : work.scratch) {  // any thread may get any of the work
            mine.normed.resize(size_t(std::max(embedding[0].in, features)) * P);
            mine.hidden.resize(hidden);
        }
        work.team.each(panels, [&](long p, int t) { embed<P>(images, total, p, work, work.scratch[t]); });
        for (const Block &block : blocks) {
            const int wide = block.qkv.out, inner = block.proj.in;
            work.qkv.resize(size_t(panels) * wide * P), work.o.resize(size_t(panels) * inner * P);
            work.team.each(panels, [&](long p, int t) {
                Scratch &mine = work.scratch[t];
                block.norm1.run<P>(&work.x[p * features * P], mine.normed.data());
                block.qkv.run<P>(mine.normed.data(), &work.qkv[p * wide * P], {}, mine);
            });
            work.team.each(batch * block.heads, [&](long i, int t) {
                attend<P>(block, i / block.heads, int(i % block.heads), work, work.scratch[t]);
            });
            work.team.each(panels, [&](long p, int t) {
                Scratch &mine = work.scratch[t];
                float *x = &work.x[p * features * P];
                block.proj.run<P>(&work.o[p * inner * P], x, {Activation::none, x}, mine);
                block.norm2.run<P>(x, mine.normed.data());
                block.fc1.run<P>(mine.normed.data(), mine.hidden.data(), {block.activation, nullptr}, mine);
                block.fc2.run<P>(mine.hidden.data(), x, {Activation::none, x}, mine);
            });
        }
        work.team.each(batch, [&](long b, int t) { classify<P>(b, logits, work, work.scratch[t]); });
    }

    // Patches as columns, through the embedding; prefix tokens and positions; the norm before the first block.
    template <int P>
    void embed(const float *images, long total, long p, Workspace &work, Scratch &mine) const {
        const int side = spec.patch, across = spec.width / side, features = spec.features;
        const size_t pixels = size_t(spec.height) * spec.width;
        float *x = &work.x[p * features * P];
        std::fill_n(mine.normed.begin(), size_t(embedding[0].in) * P, 0.0f);
        for (int lane = 0; lane < P && p * P + lane < total; lane++) {
            const long image = (p * P + lane) / tokens();
            const int patch = int((p * P + lane) % tokens()) - spec.prefix;
            if (patch < 0) continue;
            float *column = mine.normed.data() + lane;
            for (int c = 0; c < spec.channels; c++)
                for (int y = 0; y < side; y++) {
                    const int row = patch / across * side + y;
                    const float *from = images + (image * spec.channels + c) * pixels + size_t(row) * spec.width +
                                        size_t(patch % across) * side;
                    for (int z = 0; z < side; z++, column += P) *column = from[z];
                }
        }
        embedding[0].run<P>(mine.normed.data(), x, {}, mine);
        for (int lane = 0; lane < P && p * P + lane < total; lane++) {
            const int token = int((p * P + lane) % tokens()), patch = token - spec.prefix;
            for (int d = 0; d < features; d++) {
                float &to = x[size_t(d) * P + lane];
                to = patch < 0 ? prefix_[size_t(token) * features + d] : to + position_[size_t(patch) * features + d];
            }
        }
        if (norm_pre) norm_pre.run<P>(x, x);
    }

    // One head of one image: scores of all keys for a panel of queries at a time.
    template <int P>
    void attend(const Block &block, long image, int head, Workspace &work, Scratch &mine) const {
        const int width = block.head_width(), n = tokens(), inner = block.proj.in, wide = block.qkv.out;
        const long first = image * n, last = first + n;
        mine.keys.resize(n, width), mine.values.resize(width, n);
        for (long g = first; g < last; g++) {
            const float *column = &work.qkv[(g / P) * wide * P + g % P];
            for (int d = 0; d < width; d++) {
                mine.keys.at(int(g - first), d) = column[size_t(inner + head * width + d) * P];
                mine.values.at(d, int(g - first)) = column[size_t(2 * inner + head * width + d) * P];
            }
        }
        rounded(mine.keys.weight.data(), mine.keys.weight.size(), block.key);
        rounded(mine.values.weight.data(), mine.values.weight.size(), block.value);
        mine.scores.resize(size_t(n) * P), mine.edge.resize(size_t(width) * P);
        for (long p = first / P; p * P < last; p++) {
            const float *query = &work.qkv[(p * wide + head * width) * P];
            float *to = &work.o[(p * inner + head * width) * P];
            const bool whole = p * P >= first && (p + 1) * P <= last;
            Buffer<float> &scaled = mine.edge;
            for (size_t i = 0; i < size_t(width) * P; i += kLanes) store(&scaled[i], load(query + i) * block.scale);
            rounded(scaled.data(), size_t(width) * P, block.query);
            mine.keys.run<P>(scaled.data(), mine.scores.data(), nullptr, {});
            softmax<P>(mine.scores.data(), n);
            rounded(mine.scores.data(), size_t(n) * P, block.probabilities);
            mine.values.run<P>(mine.scores.data(), whole ? to : scaled.data(), nullptr, {});
            if (whole) continue;
            for (int lane = 0; lane < P; lane++)
                if (p * P + lane >= first && p * P + lane < last)
                    for (int d = 0; d < width; d++) to[size_t(d) * P + lane] = scaled[size_t(d) * P + lane];
        }
    }

    // To the values that uint8 can hold, as QuantizeLinear and DequantizeLinear do.
    static void rounded(float *x, size_t count, const Range &range) {
        if (!range.on()) return;
        const auto value = [&](Floats y) {
            return __builtin_convertvector(steps(y, range.scale, range.zero_point) - range.zero_point, Floats) * range.scale;
        };
        size_t i = 0;
        for (; i + kLanes <= count; i += kLanes) store(x + i, value(load(x + i)));
        for (; i < count; i++) x[i] = value(all(x[i]))[0];
    }

    // Over the rows of [n][P], lane by lane.
    template <int P>
    static void softmax(float *scores, int n) {
        for (int p = 0; p < P; p += kLanes) {
            Floats most = load(scores + p), sum{};
            for (int i = 1; i < n; i++) most = larger(most, load(scores + size_t(i) * P + p));
            for (int i = 0; i < n; i++) {
                const Floats e = exponential(load(scores + size_t(i) * P + p) - most);
                sum += e;
                store(scores + size_t(i) * P + p, e);
            }
            const Floats factor = 1.0f / sum;
            for (int i = 0; i < n; i++) {
                float *at = scores + size_t(i) * P + p;
                store(at, load(at) * factor);
            }
        }
    }

    // Norm, pooling and head of one image, in a panel of its own whose first lanes are the pooled tokens.
    template <int P>
    void classify(long image, float *logits, Workspace &work, Scratch &mine) const {
        const int features = spec.features, n = tokens(), pooled = spec.average ? 1 : int(heads.size());
        Buffer<float> column(size_t(features) * P), sum(size_t(features) * P), out;
        const long first = image * n;
        const auto copy = [&](long g, int lane) {
            const float *from = &work.x[(g / P) * features * P + g % P];
            for (int d = 0; d < features; d++) column[size_t(d) * P + lane] = from[size_t(d) * P];
        };
        if (spec.average) {
            for (long g = first + spec.prefix; g < first + n; g += P) {
                const int lanes = int(std::min<long>(P, first + n - g));
                for (int lane = 0; lane < lanes; lane++) copy(g + lane, lane);
                if (norm) norm.run<P>(column.data(), column.data());
                for (int d = 0; d < features; d++)
                    for (int lane = 0; lane < lanes; lane++) sum[size_t(d) * P] += column[size_t(d) * P + lane];
            }
            for (int d = 0; d < features; d++) column[size_t(d) * P] = sum[size_t(d) * P] / float(patches());
        } else {
            for (int token = 0; token < pooled; token++) copy(first + token, token);
            if (norm) norm.run<P>(column.data(), column.data());
        }
        if (head_norm) head_norm.run<P>(column.data(), column.data());
        for (int c = 0; c < classes(); c++) logits[image * classes() + c] = 0.0f;
        for (size_t h = 0; h < heads.size(); h++) {
            out.resize(size_t(classes()) * P);
            heads[h].run<P>(column.data(), out.data(), {}, mine);
            for (int c = 0; c < classes(); c++)
                logits[image * classes() + c] += out[size_t(c) * P + (spec.average ? 0 : h)] / float(heads.size());
        }
    }

    Buffer<float> prefix_, position_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<Workspace>> free_;
};
