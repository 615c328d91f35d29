// The C interface that ovit_deploy/engines/sparse/library.py speaks. Functions that can fail answer 0 for success;
// ovit_error() says what was wrong in this thread.
#include <string>

#include "peak.hpp"
#include "vit.hpp"

#define OVIT_API extern "C" __attribute__((visibility("default")))

namespace {

thread_local std::string message;

template <typename F>
int guarded(F f) {
    try {
        f();
        return 0;
    } catch (const std::bad_alloc &) {
        message = "out of memory";
    } catch (const std::exception &error) {
        message = error.what();
    }
    return 1;
}

}  // namespace

OVIT_API const char *ovit_error() { return message.c_str(); }
OVIT_API int ovit_lanes() { return kLanes; }

// The best of the libraries that this processor runs: 2 avx512 with vnni, 1 avx2 with fma, 0 any.
OVIT_API int ovit_level() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vnni");
    if (avx512) return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}

// Operations a second of one core, at most.
OVIT_API double ovit_peak(int integers) { return integers ? peak<int32_t>() : peak<float>(); }

OVIT_API Model *ovit_new(const ModelSpec *spec, const LinearSpec *embedding) {
    Model *made = nullptr;
    guarded([&] {
        auto model = std::make_unique<Model>(*spec);
        model->embedding.emplace_back(*embedding);
        made = model.release();
    });
    return made;
}
OVIT_API void ovit_free(Model *model) { delete model; }

// which: 0 before the first block, 1 after the last, 2 after pooling.
OVIT_API int ovit_norm(Model *model, int which, const NormSpec *spec) {
    Norm *const norms[] = {&model->norm_pre, &model->norm, &model->head_norm};
    return guarded([&] { *norms[which] = Norm(*spec); });
}
OVIT_API int ovit_block(Model *model, const BlockSpec *spec) {
    return guarded([&] { model->blocks.emplace_back(*spec); });
}
OVIT_API int ovit_head(Model *model, const LinearSpec *spec) {
    return guarded([&] { model->heads.emplace_back(*spec); });
}

// form: 0 each layer by timing, 1 dense, 2 sparse.
OVIT_API int ovit_ready(Model *model, int threads, int form) {
    return guarded([&] { model->ready(threads, Form(form)); });
}
OVIT_API int ovit_run(Model *model, const float *images, long batch, float *logits) {
    return guarded([&] { model->run(images, batch, logits); });
}

// As ovit_run; what each of Model::places() took, in seconds, added over threads.
OVIT_API long ovit_places(Model *model) { return long(model->places()); }
OVIT_API int ovit_profile(Model *model, const float *images, long batch, float *logits, double *seconds) {
    return guarded([&] { model->run(images, batch, logits, seconds); });
}

// Of every layer, in the order of Model::linears: whether it is sparse, and how many entries it then holds.
OVIT_API int ovit_forms(Model *model, int *sparse, long *entries) {
    return guarded([&] {
        for (const Linear *linear : model->linears()) {
            *sparse++ = linear->is_sparse();
            *entries++ = long(linear->entries());
        }
    });
}
