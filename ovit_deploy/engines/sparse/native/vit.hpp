// An isotropic vision transformer on panels of tokens.
//
// The tokens of all images of a batch stand one after the other, every image from the beginning of a vector on; a panel
// of at most kPanel of them is [features][kPanel]. Everything but attention looks at one token at a time, so a panel
// goes through it alone:
//
//     panel            x <- embedding;  qkv <- norm1(x)
//     for every block:
//         image and head   o <- softmax(scale q k^T) v
//         panel            x <- x + proj(o);  x <- x + fc2(activation(fc1(norm2(x))));  the next qkv <- norm1(x)
//
// Lanes behind an image's last token hold numbers that nobody looks at.
#pragma once

#include <memory>
#include <mutex>

#include "attention.hpp"
#include "team.hpp"

struct Norm {
    Buffer<float> weight, bias;
    float epsilon = 0;

    Norm() = default;
    explicit Norm(const NormSpec &s)
        : weight(s.weight, s.weight + s.features), bias(s.bias, s.bias + s.features), epsilon(s.epsilon) {}
    explicit operator bool() const { return !weight.empty(); }

    void run(const float *x, float *y, int vectors) const {
        in_groups<4>(vectors, [&](int first, auto count) {
            over<decltype(count)::value>(x + first * kLanes, y + first * kLanes);
        });
    }

  private:
    template <int U>
    void over(const float *x, float *y) const {
        const int features = int(weight.size());
        const float share = 1.0f / features;
        Floats mean[U] = {}, square[U] = {}, factor[U];
        for (int d = 0; d < features; d++)
            for (int u = 0; u < U; u++) mean[u] += load(x + d * kPanel + u * kLanes);
        for (int u = 0; u < U; u++) mean[u] *= share;
        for (int d = 0; d < features; d++)
            for (int u = 0; u < U; u++) {
                const Floats z = load(x + d * kPanel + u * kLanes) - mean[u];
                square[u] += z * z;
            }
        for (int u = 0; u < U; u++) factor[u] = 1.0f / square_root(square[u] * share + epsilon);
        for (int d = 0; d < features; d++)
            for (int u = 0; u < U; u++) {
                const Floats z = (load(x + d * kPanel + u * kLanes) - mean[u]) * factor[u];
                store(y + d * kPanel + u * kLanes, z * weight[d] + bias[d]);
            }
    }
};

struct Block {
    Norm norm1, norm2;
    Linear qkv, proj, fc1, fc2;
    Attention attention;
    Activation activation;

    explicit Block(const BlockSpec &s)
        : norm1(s.norm1), norm2(s.norm2), qkv(s.qkv), proj(s.proj), fc1(s.fc1), fc2(s.fc2), attention(s, s.proj.in),
          activation(Activation(s.activation)) {}
};

// What one run needs beside the model; runs at the same time have one each.
struct Workspace {
    Team team;
    std::vector<Scratch> scratch;
    Buffer<float> x, o, floats;  // [panels][features][kPanel]; floats and words are of qkv
    Buffer<int32_t> words;
    Layout layout;
    long vectors = 0, panels = 0;
    int last = 0;  // lanes that the last vector of an image holds
    long of_image = 1;  // its vectors
    Filled in_panel(long panel) const {
        const long whole = layout.lanes / kLanes, end = std::min(vectors, (panel + 1) * whole);
        return {int(end - panel * whole), end % of_image == 0 && last <= kLanes / 2};
    }
    explicit Workspace(int threads) : team(threads), scratch(threads) {}
};

class Model {
  public:
    explicit Model(const ModelSpec &s)
        : spec(s), prefix_(s.prefix_tokens, s.prefix_tokens + size_t(s.prefix) * s.features),
          position_(s.position, s.position + size_t(patches()) * s.features) {}

    int patches() const { return (spec.height / spec.patch) * (spec.width / spec.patch); }
    int tokens() const { return spec.prefix + patches(); }
    int lanes() const { return (tokens() + kLanes - 1) / kLanes * kLanes; }
    int classes() const { return heads.front().out; }

    ModelSpec spec;
    std::vector<Linear> embedding, heads;
    std::vector<Block> blocks;
    Norm norm_pre, norm, head_norm;
    int threads = 1;

    void ready(int threads_, Form form) {
        threads = threads_;
        Choices choices(form, std::min(lanes(), kPanel) / kLanes);
        for (Linear *linear : linears()) linear->pack(choices);
    }

    std::vector<Linear *> linears() {
        std::vector<Linear *> all{&embedding.front()};
        for (Block &b : blocks) all.insert(all.end(), {&b.qkv, &b.proj, &b.fc1, &b.fc2});
        for (Linear &head : heads) all.push_back(&head);
        return all;
    }

    // The places of a profile: embedding, those of every block, the end of the network.
    enum Place { kNorm1, kQkv, kAttention, kProj, kNorm2, kFc1, kFc2, kPlaces };
    size_t places() const { return 2 + kPlaces * blocks.size(); }

    // `seconds`, if given, gets what each place took, added over threads.
    void run(const float *images, long batch, float *logits, double *seconds = nullptr) {
        std::unique_ptr<Workspace> work = take();
        for (Scratch &mine : work->scratch) mine.seconds.assign(seconds ? places() : 0, 0.0);
        run_on(images, batch, logits, *work);
        if (seconds) std::fill_n(seconds, places(), 0.0);
        for (const Scratch &mine : work->scratch)
            for (size_t i = 0; i < mine.seconds.size(); i++) seconds[i] += mine.seconds[i];
        give(std::move(work));
    }

  private:
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

    // Panels as full as can be, evenly, and one for each thread at least.
    void lay_out(long vectors, Workspace &work) const {
        constexpr long whole = kPanel / kLanes;
        long panels = std::max((vectors + whole - 1) / whole, std::min<long>(threads, vectors));
        if (panels < 4 * threads) panels = std::min(vectors, (panels + threads - 1) / threads * threads);
        const long each = panels ? (vectors + panels - 1) / panels : 1;
        work.layout.lanes = int(each) * kLanes;
        work.of_image = lanes() / kLanes, work.last = tokens() - (lanes() - kLanes);
        work.vectors = vectors, work.panels = (vectors + each - 1) / each;
    }

    void run_on(const float *images, long batch, float *logits, Workspace &work) const {
        const size_t across = size_t(spec.features) * kPanel;
        lay_out(batch * lanes() / kLanes, work);
        const size_t panels = work.panels;
        size_t widest = embedding[0].in;
        at_least(work.x, panels * across);
        for (const Block &block : blocks) {
            at_least(work.o, panels * block.proj.in * kPanel);
            if (block.attention.is_integer()) at_least(work.words, panels * block.attention.kept());
            else at_least(work.floats, panels * block.attention.kept());
            widest = std::max<size_t>(widest, std::max(block.fc1.out, block.qkv.out));
        }
        for (Scratch &mine : work.scratch) at_least(mine.normed, across), at_least(mine.hidden, widest * kPanel);
        work.team.each(work.panels, [&](long p, int t) {
            work.scratch[t].start();
            embed(images, batch, p, work, work.scratch[t]);
            work.scratch[t].lap(0);
            if (!blocks.empty()) before_attention(0, p, work, work.scratch[t]);
        });
        for (size_t b = 0; b < blocks.size(); b++) {
            const Attention &attention = blocks[b].attention;
            work.team.each(batch * attention.heads, [&](long i, int t) {
                const long first = i / attention.heads * lanes();
                const int head = int(i % attention.heads);
                Scratch &mine = work.scratch[t];
                mine.start();
                const auto run = [&](const auto &kept) {
                    using Word = std::decay_t<decltype(kept[0])>;
                    attention.run(Head<Word>{kept.data(), work.o.data(), work.layout, first, tokens(), head}, mine);
                };
                if (attention.is_integer()) run(work.words);
                else run(work.floats);
                mine.lap(place(b, kAttention));
            });
            work.team.each(work.panels, [&](long p, int t) {
                work.scratch[t].start();
                after_attention(b, p, work, work.scratch[t]);
                if (b + 1 < blocks.size()) before_attention(b + 1, p, work, work.scratch[t]);
            });
        }
        work.team.each(batch, [&](long b, int t) {
            work.scratch[t].start();
            classify(b, logits, work, work.scratch[t]);
            work.scratch[t].lap(places() - 1);
        });
    }

    static size_t place(size_t block, Place place) { return 1 + block * kPlaces + place; }
    void before_attention(size_t b, long p, Workspace &work, Scratch &mine) const {
        const Block &block = blocks[b];
        const Filled filled = work.in_panel(p);
        float *normed = mine.normed.data();
        block.norm1.run(&work.x[p * spec.features * kPanel], normed, filled.vectors);
        mine.lap(place(b, kNorm1));
        if (block.attention.is_integer()) {
            block.qkv.run(normed, mine.hidden.data(), filled, mine);
            block.attention.quantize(mine.hidden.data(), &work.words[p * block.attention.kept()], filled.vectors);
        } else {
            block.qkv.run(normed, &work.floats[p * block.attention.kept()], filled, mine);
        }
        mine.lap(place(b, kQkv));
    }

    void after_attention(size_t b, long p, Workspace &work, Scratch &mine) const {
        const Block &block = blocks[b];
        const Filled filled = work.in_panel(p);
        float *x = &work.x[p * spec.features * kPanel], *normed = mine.normed.data(), *hidden = mine.hidden.data();
        block.proj.run(&work.o[p * block.proj.in * kPanel], x, filled, mine, Activation::none, true);
        mine.lap(place(b, kProj));
        block.norm2.run(x, normed, filled.vectors);
        mine.lap(place(b, kNorm2));
        block.fc1.run(normed, hidden, filled, mine);
        mine.lap(place(b, kFc1));
        block.fc2.run(hidden, x, filled, mine, block.activation, true);
        mine.lap(place(b, kFc2));
    }

    // Patches as columns, through the embedding; prefix tokens and positions; the norm before the first block.
    void embed(const float *images, long batch, long p, Workspace &work, Scratch &mine) const {
        const int side = spec.patch, across = spec.width / side, features = spec.features;
        const size_t pixels = size_t(spec.height) * spec.width;
        const Filled filled = work.in_panel(p);
        const long first = p * work.layout.lanes;
        float *x = &work.x[p * features * kPanel], *columns = mine.hidden.data();
        const auto each_token = [&](auto f) {  // lane, image, token
            for (int lane = 0; lane < filled.vectors * kLanes; lane++)
                if (const long image = (first + lane) / lanes(); image < batch && (first + lane) % lanes() < tokens())
                    f(lane, image, int((first + lane) % lanes()));
        };
        std::fill_n(columns, size_t(embedding[0].in) * kPanel, 0.0f);
        each_token([&](int lane, long image, int token) {
            const int patch = token - spec.prefix;
            if (patch < 0) return;
            float *column = columns + lane;
            for (int c = 0; c < spec.channels; c++)
                for (int y = 0; y < side; y++) {
                    const int row = patch / across * side + y;
                    const float *from = images + (image * spec.channels + c) * pixels + size_t(row) * spec.width +
                                        size_t(patch % across) * side;
                    for (int z = 0; z < side; z++, column += kPanel) *column = from[z];
                }
        });
        embedding[0].run(columns, x, filled, mine);
        each_token([&](int lane, long, int token) {
            const int patch = token - spec.prefix;
            for (int d = 0; d < features; d++) {
                float &to = x[size_t(d) * kPanel + lane];
                to = patch < 0 ? prefix_[size_t(token) * features + d] : to + position_[size_t(patch) * features + d];
            }
        });
        if (norm_pre) norm_pre.run(x, x, filled.vectors);
    }

    // Norm, pooling and head of one image, in a panel of its own whose first lanes are the pooled tokens.
    void classify(long image, float *logits, Workspace &work, Scratch &mine) const {
        const int features = spec.features, n = tokens(), pooled = spec.average ? 1 : int(heads.size());
        const int vectors = spec.average ? 1 : (pooled + kLanes - 1) / kLanes;
        Buffer<float> column(size_t(features) * kPanel), sum(features), out(size_t(classes()) * kPanel);
        const long first = image * lanes();
        const auto copy = [&](long g, int lane) {
            const float *from = &work.x[work.layout.panel(g) * features * kPanel + work.layout.within(g)];
            for (int d = 0; d < features; d++) column[size_t(d) * kPanel + lane] = from[size_t(d) * kPanel];
        };
        if (spec.average) {
            for (long g = first + spec.prefix; g < first + n; g += kLanes) {
                const int count = int(std::min<long>(kLanes, first + n - g));
                for (int lane = 0; lane < count; lane++) copy(g + lane, lane);
                if (norm) norm.run(column.data(), column.data(), 1);
                for (int d = 0; d < features; d++)
                    for (int lane = 0; lane < count; lane++) sum[d] += column[size_t(d) * kPanel + lane];
            }
            for (int d = 0; d < features; d++) column[size_t(d) * kPanel] = sum[d] / float(patches());
        } else {
            for (int token = 0; token < pooled; token++) copy(first + token, token);
            if (norm) norm.run(column.data(), column.data(), vectors);
        }
        if (head_norm) head_norm.run(column.data(), column.data(), vectors);
        for (int c = 0; c < classes(); c++) logits[image * classes() + c] = 0.0f;
        for (size_t h = 0; h < heads.size(); h++) {
            heads[h].run(column.data(), out.data(), Filled{vectors}, mine);
            for (int c = 0; c < classes(); c++)
                logits[image * classes() + c] += out[size_t(c) * kPanel + (spec.average ? 0 : h)] / float(heads.size());
        }
    }

    Buffer<float> prefix_, position_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<Workspace>> free_;
};
