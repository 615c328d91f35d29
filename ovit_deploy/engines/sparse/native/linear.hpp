// A linear layer, in the form that is fastest for its zeros.
#pragma once

#include <map>
#include <tuple>

#include "product.hpp"
#include "scratch.hpp"
#include "spec.hpp"

enum class Form { fastest, dense, sparse };

enum class Activation { none, gelu, gelu_tanh, relu, silu };

// f(the function).
template <typename F>
void with(Activation activation, F f) {
    switch (activation) {
        case Activation::gelu: return f([](Floats x) { return gelu(x); });
        case Activation::gelu_tanh: return f([](Floats x) { return gelu_tanh(x); });
        case Activation::relu: return f([](Floats x) { return relu(x); });
        case Activation::silu: return f([](Floats x) { return silu(x); });
        default: return f([](Floats x) { return x; });
    }
}

// A word of up to four rows of floats, of which f is taken.
template <typename F>
inline Ints word_of(const Steps &steps, const float *x, int stride, int rows, F f) {
    if (rows >= kPerWord)
        return steps(f(load(x)), f(load(x + stride)), f(load(x + 2 * stride)), f(load(x + 3 * stride)));
    Ints word{};
    for (int j = 0; j < rows; j++) word |= steps(f(load(x + j * stride))) << (8 * j);
    return word;
}

// One weight matrix in one of its forms.
template <typename Word>
struct Product {
    int out, in;
    Buffer<Word> source;  // [out][in], until it is packed
    Dense<Word> dense;
    Sparse<Word> sparse;
    bool is_sparse = false;

    void pack(bool sparsely) {
        is_sparse = sparsely;
        if (is_sparse) sparse.fill(source.data(), out, in);
        else dense.fill(source.data(), out, in);
        source = {};
    }
    void run(const Word *x, float *y, Filled filled, const Finish &finish, Scratch &mine) const {
        Word *partial = reinterpret_cast<Word *>(y);
        if (finish.add) partial = reinterpret_cast<Word *>(at_least(mine.partial, size_t(out) * kPanel));
        if (is_sparse) sparse.run(x, y, filled, finish, partial);
        else dense.run(x, y, filled, finish, partial);
    }
    size_t entries() const { return is_sparse ? sparse.entries.size() : 0; }
    int tenths() const { return int(10.0 * std::count(source.begin(), source.end(), Word{}) / source.size()); }

    bool sparse_is_faster(int vectors, const Finish &finish) const {
        Dense<Word> as_dense;
        Sparse<Word> as_sparse;
        as_dense.fill(source.data(), out, in), as_sparse.fill(source.data(), out, in);
        return seconds(as_sparse, vectors, finish) < seconds(as_dense, vectors, finish);
    }

  private:
    template <typename Packed>
    double seconds(const Packed &packed, int vectors, const Finish &finish) const {
        Buffer<Word> x(size_t(in) * kPanel, Word(1));
        Buffer<float> y(size_t(out) * kPanel);
        double best = 1e9;
        for (int i = 0; i < 5; i++) {
            const auto start = std::chrono::steady_clock::now();
            packed.run(x.data(), y.data(), Filled{vectors}, finish, reinterpret_cast<Word *>(y.data()));
            best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        }
        return best;
    }
};

// Which form is faster: timed once for layers of one size and about the same share of zeros.
class Choices {
  public:
    Choices(Form form, int vectors) : form_(form), vectors_(vectors) {}

    template <typename Word>
    bool sparse(const Product<Word> &product, const Finish &finish) {
        if (form_ != Form::fastest) return form_ == Form::sparse;
        const Kind kind{std::is_same_v<Word, float>, product.out, product.in, product.tenths()};
        const auto found = known_.find(kind);
        if (found != known_.end()) return found->second;
        return known_[kind] = product.sparse_is_faster(vectors_, finish);
    }

  private:
    using Kind = std::tuple<bool, int, int, int>;
    Form form_;
    int vectors_;
    std::map<Kind, bool> known_;
};

class Linear {
  public:
    explicit Linear(const LinearSpec &s)
        : out(s.out), in(s.in), is_integer(s.integers), shift_(s.bias, s.bias + s.out),
          floats_{s.out, s.in, {}, {}, {}}, integers_{s.out, (s.in + kPerWord - 1) / kPerWord, {}, {}, {}} {
        if (!is_integer) {
            floats_.source.assign(s.weight, s.weight + size_t(out) * in);
            return;
        }
        steps_ = {1.0f / s.input.scale, s.input.zero_point};
        scale_.resize(out);
        integers_.source.resize(size_t(out) * integers_.in);
        auto *bytes = reinterpret_cast<int8_t *>(integers_.source.data());
        for (int m = 0; m < out; m++, bytes += integers_.in * kPerWord) {
            const int8_t *row = s.integers + size_t(m) * in;
            std::copy(row, row + in, bytes);
            scale_[m] = s.scale[m] * s.input.scale;  // the zero point of the inputs goes into the shift
            const double sum = double(std::accumulate(row, row + in, 0L));
            shift_[m] = float(double(shift_[m]) - sum * steps_.zero_point * scale_[m]);
        }
    }

    void pack(Choices &choices) {
        if (is_integer) integers_.pack(choices.sparse(integers_, finish()));
        else floats_.pack(choices.sparse(floats_, finish()));
    }

    // y = W f(x) + b, or that added to y, with f an activation; y is not x, and x is not what it was.
    void run(float *x, float *y, Filled filled, Scratch &mine, Activation activation = Activation::none,
             bool add = false) const {
        const Finish then{scale_.data(), shift_.data(), add};
        const int lanes = filled.vectors * kLanes;
        if (!is_integer) {
            if (activation != Activation::none) with(activation, [&](auto f) {
                for (float *row = x; row < x + size_t(in) * kPanel; row += kPanel)
                    for (int u = 0; u < lanes; u += kLanes) store(row + u, f(load(row + u)));
            });
            return floats_.run(x, y, filled, then, mine);
        }
        int32_t *words = at_least(mine.words, size_t(integers_.in) * kPanel);
        with(activation, [&](auto f) {
            for (int g = 0; g < integers_.in; g++)
                for (int u = 0; u < lanes; u += kLanes) {
                    const float *row = x + size_t(g) * kPerWord * kPanel + u;
                    store(words + g * kPanel + u, word_of(steps_, row, kPanel, in - kPerWord * g, f));
                }
        });
        integers_.run(words, y, filled, then, mine);
    }

    bool is_sparse() const { return is_integer ? integers_.is_sparse : floats_.is_sparse; }
    size_t entries() const { return is_integer ? integers_.entries() : floats_.entries(); }
    int out, in;
    bool is_integer;

  private:
    Finish finish() const { return {scale_.data(), shift_.data()}; }

    Steps steps_{};
    Buffer<float> scale_, shift_;
    Product<float> floats_;
    Product<int32_t> integers_;
};
