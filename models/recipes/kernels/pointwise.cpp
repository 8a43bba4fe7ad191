// The cheap operations around the scan, each one pass over memory: RMSNorm, causal convolution + SiLU, the gated
// combination of readouts, and cross-entropy. PyTorch's own versions of these took longer than the scan.
// All tensors float and contiguous; rows = B*T. Gradients of weights are written per thread chunk and summed by the caller.
#include "vec.h"
#include <cmath>

// y = x * rstd * w, rstd = 1/sqrt(mean(x^2) + eps), per row of D
extern "C" void rms_norm_forward(int rows, int D, float eps, const float* x, const float* w, float* y, float* rstd) {
#pragma omp parallel for
  for (int r = 0; r < rows; ++r) {
    const float* xr = x + size_t(r) * D;
    v8 squares = all(0);
    for (int i = 0; i < D; i += LANES) squares += load(xr + i) * load(xr + i);
    rstd[r] = 1.0f / std::sqrt(sum(squares) / D + eps);
    for (int i = 0; i < D; i += LANES) store(y + size_t(r) * D + i, load(xr + i) * rstd[r] * load(w + i));
  }
}

// dx = rstd * (dy*w - xhat * mean(dy*w*xhat)); dw [chunks,D]
extern "C" void rms_norm_backward(int rows, int D, int chunks, const float* x, const float* w, const float* rstd,
                                  const float* dy, float* dx, float* dw) {
#pragma omp parallel for
  for (int c = 0; c < chunks; ++c) {
    float* dwc = dw + size_t(c) * D;
    std::memset(dwc, 0, sizeof(float) * D);
    for (int r = int(int64_t(rows) * c / chunks); r < int(int64_t(rows) * (c + 1) / chunks); ++r) {
      const float *xr = x + size_t(r) * D, *dyr = dy + size_t(r) * D;
      v8 dot = all(0);
      for (int i = 0; i < D; i += LANES) dot += load(dyr + i) * load(w + i) * load(xr + i);
      const float k = sum(dot) * rstd[r] * rstd[r] / D;
      for (int i = 0; i < D; i += LANES) {
        const v8 g = load(dyr + i), xi = load(xr + i);
        store(dx + size_t(r) * D + i, rstd[r] * (g * load(w + i) - k * xi));
        store(dwc + i, load(dwc + i) + g * xi * rstd[r]);
      }
    }
  }
}

// Taps older than the document's start read zero: tap j of step t counts only if pos[t] >= j. `past` [B,K-1,E] precedes x.
static inline v8 convolve(int b, int t, int e, int T, int E, int K, const float* x, const float* w, const float* bias,
                          const int32_t* pos, const float* past) {
  v8 a = load(bias + e);
  const int p = pos[b * T + t];
  for (int j = 0; j < K && j <= p; ++j) {  // j steps back; w [K,E], oldest tap first
    const float* src = t - j >= 0 ? x + (size_t(b) * T + t - j) * E : past + (size_t(b) * (K - 1) + K - 1 + t - j) * E;
    a += load(w + (K - 1 - j) * E + e) * load(src + e);
  }
  return a;
}

// u = SiLU(conv(x)); next [B,K-1,E] are the last inputs (T >= K-1)
extern "C" void conv_silu_forward(int B, int T, int E, int K, const float* x, const float* w, const float* bias,
                                  const int32_t* pos, const float* past, float* u, float* next) {
#pragma omp parallel for collapse(2)
  for (int b = 0; b < B; ++b)
    for (int t = 0; t < T; ++t)
      for (int e = 0; e < E; e += LANES) {
        const v8 a = convolve(b, t, e, T, E, K, x, w, bias, pos, past);
        store(u + (size_t(b) * T + t) * E + e, a * sigmoid(a));
      }
  for (int b = 0; b < B; ++b)
    std::memcpy(next + size_t(b) * (K - 1) * E, x + (size_t(b) * T + T - (K - 1)) * E, sizeof(float) * (K - 1) * E);
}

// dx [B,T,E] (set), dw [B,K,E], dbias [B,E]
extern "C" void conv_silu_backward(int B, int T, int E, int K, const float* x, const float* w, const float* bias,
                                   const int32_t* pos, const float* past, const float* du, float* dx, float* dw, float* dbias) {
#pragma omp parallel for schedule(dynamic)
  for (int b = 0; b < B; ++b) {
    float *dwb = dw + size_t(b) * K * E, *dbb = dbias + size_t(b) * E;
    std::memset(dwb, 0, sizeof(float) * K * E);
    std::memset(dbb, 0, sizeof(float) * E);
    std::memset(dx + size_t(b) * T * E, 0, sizeof(float) * T * E);
    for (int t = 0; t < T; ++t) {
      const int p = pos[b * T + t];
      for (int e = 0; e < E; e += LANES) {
        const v8 a = convolve(b, t, e, T, E, K, x, w, bias, pos, past), s = sigmoid(a);
        const v8 g = load(du + (size_t(b) * T + t) * E + e) * s * (1.0f + a * (1.0f - s));
        store(dbb + e, load(dbb + e) + g);
        for (int j = 0; j < K && j <= p; ++j) {
          float* dwj = dwb + (K - 1 - j) * E + e;
          if (t - j >= 0) {
            const size_t cell = (size_t(b) * T + t - j) * E + e;
            store(dx + cell, load(dx + cell) + g * load(w + (K - 1 - j) * E + e));
            store(dwj, load(dwj) + g * load(x + cell));
          } else {
            store(dwj, load(dwj) + g * load(past + (size_t(b) * (K - 1) + K - 1 + t - j) * E + e));
          }
        }
      }
    }
  }
}

// y = (r_0 + sum_i SiLU(gate_i) r_i + D u) * SiLU(z); gates [rows, k*E], link i uses gate min(i, k-1)
extern "C" void combine_forward(int rows, int E, int links, int k, const float* const* r, const float* gates,
                                const float* D, const float* u, const float* z, float* y) {
#pragma omp parallel for
  for (int row = 0; row < rows; ++row)
    for (int e = 0; e < E; e += LANES) {
      const size_t cell = size_t(row) * E + e;
      v8 a = load(r[0] + cell) + load(D + e) * load(u + cell);
      for (int i = 0; i < links; ++i) {
        const v8 g = load(gates + size_t(row) * k * E + (i < k ? i : k - 1) * E + e);
        a += g * sigmoid(g) * load(r[1 + i] + cell);
      }
      const v8 zz = load(z + cell);
      store(y + cell, a * zz * sigmoid(zz));
    }
}

// dr[i], du, dz [rows,E] and dgates [rows,k*E] (all set), dD [chunks,E]
extern "C" void combine_backward(int rows, int E, int links, int k, int chunks, const float* const* r, const float* gates,
                                 const float* D, const float* u, const float* z, const float* dy, float* const* dr,
                                 float* dgates, float* du, float* dz, float* dD) {
#pragma omp parallel for
  for (int c = 0; c < chunks; ++c) {
    float* dDc = dD + size_t(c) * E;
    std::memset(dDc, 0, sizeof(float) * E);
    for (int row = int(int64_t(rows) * c / chunks); row < int(int64_t(rows) * (c + 1) / chunks); ++row)
      for (int e = 0; e < E; e += LANES) {
        const size_t cell = size_t(row) * E + e;
        const v8 zz = load(z + cell), sz = sigmoid(zz), uu = load(u + cell), g = load(dy + cell), da = g * zz * sz;
        v8 a = load(r[0] + cell) + load(D + e) * uu, dshared = all(0);
        store(dr[0] + cell, da);
        for (int i = 0; i < links; ++i) {
          const int which = i < k ? i : k - 1;
          const size_t at = size_t(row) * k * E + which * E + e;
          const v8 q = load(gates + at), s = sigmoid(q), ri = load(r[1 + i] + cell);
          a += q * s * ri;
          store(dr[1 + i] + cell, da * q * s);
          v8 dq = da * ri * s * (1.0f + q * (1.0f - s));
          if (k < links) dq = dshared += dq;  // one gate for all links (k = 1)
          store(dgates + at, dq);
        }
        store(du + cell, da * load(D + e));
        store(dDc + e, load(dDc + e) + da * uu);
        store(dz + cell, g * a * sz * (1.0f + zz * (1.0f - sz)));
      }
  }
}

// Replaces logits by the gradient of sum_r weight[r] * loss[r]; loss [rows] in nats, unweighted.
extern "C" void cross_entropy(int rows, int V, float* logits, const int32_t* target, const float* weight, float* loss) {
#pragma omp parallel for
  for (int r = 0; r < rows; ++r) {
    float* x = logits + size_t(r) * V;
    v8 top = load(x), total = all(0);
    for (int i = LANES; i < V; i += LANES) top = (v8)_mm256_max_ps((__m256)top, (__m256)load(x + i));
    float m = top[0];
    for (int i = 1; i < LANES; ++i) m = top[i] > m ? top[i] : m;
    const float right = x[target[r]];
    for (int i = 0; i < V; i += LANES) {
      const v8 e = expv(load(x + i) - m);
      store(x + i, e);
      total += e;
    }
    const float z = sum(total), scale = weight[r] / z;
    loss[r] = std::log(z) + m - right;
    for (int i = 0; i < V; i += LANES) store(x + i, load(x + i) * scale);
    x[target[r]] -= weight[r];
  }
}
