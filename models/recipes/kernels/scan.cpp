// Mamba's selective scan with the readouts of DenseMamba, forward and backward, for CPU. Plain C interface (build.py).
//
// One time tile of one sequence is walked channel block by channel block, so that the states of a block stay in
// registers and L1 while rows of the tile stay in L2. Shapes (floats, contiguous; b sequence, t step, e channel, n state):
//   u, raw [B,T,E]  convolved input; step size before softplus and bias       bias [E]
//   A2 [E/8,N,8]    A * log2(e)          Bm, Cm [B,T,N]        pos [B,T]  0 where a document starts: the state is cleared
//   h0, hT [B,E/8,N,8]  state carried in and out
//   H               states of every step, [B][tile][E/8][step in tile][N][8], kept for the backward pass and for deeper layers
//   out[0] = C.h, out[i] = C.h^{l-i}: [B,T,E] each, one per link
//   delta [B,T,E]   softplus(raw + bias), kept for the backward pass
#include "vec.h"
#include <type_traits>
#include <vector>

constexpr int TILE = 16;

struct Sizes {
  int B, T, E, N;
  int blocks() const { return E / LANES; }
  int tiles() const { return (T + TILE - 1) / TILE; }
  size_t state(int b, int tile, int block) const {
    return ((size_t(b) * tiles() + tile) * blocks() + block) * TILE * N * LANES;
  }
};

template <int N, typename S, int LINKS>
static void forward(const Sizes& s, const float* u, const float* raw, const float* bias, const float* A2,
                    const float* Bm, const float* Cm, const int32_t* pos, const float* h0, float* hT, S* H,
                    const S* const* past, float* const* out, float* delta) {
  constexpr int ROW = N * LANES;
  const int groups = s.blocks() % 2 ? 1 : 2;  // halves of the channels, so that a single sequence uses both cores
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int b = 0; b < s.B; ++b)
    for (int group = 0; group < groups; ++group) {
      const int first = s.blocks() / groups * group, last = first + s.blocks() / groups;
      float* state = hT + size_t(b) * s.blocks() * ROW;
      std::memcpy(state + first * ROW, h0 + (size_t(b) * s.blocks() + first) * ROW, sizeof(float) * (last - first) * ROW);
      for (int tile = 0; tile < s.tiles(); ++tile)
        for (int block = first; block < last; ++block) {
          const int t0 = tile * TILE, steps = s.T - t0 < TILE ? s.T - t0 : TILE;
          const float* A = A2 + block * ROW;
          const size_t at = s.state(b, tile, block);
          v8 h[N];
          for (int n = 0; n < N; ++n) h[n] = load(state + block * ROW + n * LANES);
          for (int k = 0; k < steps; ++k) {
            const size_t row = size_t(b) * s.T + t0 + k, cell = row * s.E + block * LANES;
            const float *Bt = Bm + row * N, *Ct = Cm + row * N;
            const v8 d = softplus(load(raw + cell) + load(bias + block * LANES)), du = d * load(u + cell);
            store(delta + cell, d);
            if (pos[row] == 0)
              for (int n = 0; n < N; ++n) h[n] = all(0);
            v8 y[LINKS + 1] = {};
            const S* Hi[LINKS + 1];
            for (int i = 0; i < LINKS; ++i) Hi[i] = past[i] + at + k * ROW;
            for (int n = 0; n < N; ++n) {
              h[n] = exp2v(d * load(A + n * LANES)) * h[n] + du * Bt[n];
              y[0] += h[n] * Ct[n];
              store(H + at + k * ROW + n * LANES, h[n]);
              for (int i = 0; i < LINKS; ++i) y[1 + i] += load(Hi[i] + n * LANES) * Ct[n];
            }
            for (int i = 0; i <= LINKS; ++i) store(out[i] + cell, y[i]);
          }
          for (int n = 0; n < N; ++n) store(state + block * ROW + n * LANES, h[n]);
        }
    }
}

// Gradients. dout[i] are those of out[i]. Deeper layers that read H contribute dh += dread[j] (x) Cread[j]: a rank-one term each,
// so no [B,T,E,N] gradient is ever stored. Written: dU, dRaw [B,T,E]; dB, dC [B,T,N] (set); dA2 [B,E/8,N,8] (set; caller sums over b).
// The backward pass reads states from late steps to early ones, which the hardware does not foresee.
template <typename S> static inline void prefetch(const S* row, int count) {
  for (int i = 0; i < count; i += 64 / sizeof(S)) __builtin_prefetch(row + i);
}

template <int N, typename S, int LINKS, int READERS>
static void backward(const Sizes& s, const float* u, const float* delta, const float* A2, const float* Bm,
                     const float* Cm, const int32_t* pos, const float* h0, const S* H, const S* const* past,
                     const float* const* dout, const float* const* dread, const float* const* Cread, float* dU,
                     float* dRaw, float* dB, float* dC, float* dA2) {
  constexpr int ROW = N * LANES;
#pragma omp parallel for schedule(dynamic)
  for (int b = 0; b < s.B; ++b) {
    std::vector<v8> carried(s.blocks() * N, all(0));
    v8 accB[TILE * N], accC[TILE * N];
    float* dA = dA2 + size_t(b) * s.blocks() * ROW;
    std::memset(dA, 0, sizeof(float) * s.blocks() * ROW);
    for (int tile = s.tiles() - 1; tile >= 0; --tile) {
      const int t0 = tile * TILE, steps = s.T - t0 < TILE ? s.T - t0 : TILE;
      for (auto& x : accB) x = all(0);
      for (auto& x : accC) x = all(0);
      for (int block = 0; block < s.blocks(); ++block) {
        const float* A = A2 + block * ROW;
        const size_t at = s.state(b, tile, block);
        const size_t soon = block + 1 < s.blocks() ? s.state(b, tile, block + 1) : tile > 0 ? s.state(b, tile - 1, 0) : at;
        v8 g[N], accA[N];  // g: gradient that the later step sends to this step's state
        for (int n = 0; n < N; ++n) g[n] = carried[block * N + n], accA[n] = all(0);
        for (int k = steps - 1; k >= 0; --k) {
          const size_t row = size_t(b) * s.T + t0 + k, cell = row * s.E + block * LANES;
          const float *Bt = Bm + row * N, *Ct = Cm + row * N;
          const v8 d = load(delta + cell), x = load(u + cell), dx = d * x, dy = load(dout[0] + cell);
          const S* now = H + at + k * ROW;
          const S* before = k > 0 ? now - ROW : tile > 0 ? H + s.state(b, tile - 1, block) + (TILE - 1) * ROW : nullptr;
          const float* start = h0 + (size_t(b) * s.blocks() + block) * ROW;
          prefetch(H + soon + k * ROW, ROW);
          for (int i = 0; i < LINKS; ++i) prefetch(past[i] + soon + k * ROW, ROW);
          const v8 keep = all(pos[row] == 0 ? 0 : 1);
          v8 dread_t[READERS + 1], dpast_t[LINKS + 1], toB = all(0), toDelta = all(0);
          const float* Cj[READERS + 1];  // local copies: stores below could alias the arrays of pointers
          const S* Hi[LINKS + 1];
          for (int j = 0; j < READERS; ++j) dread_t[j] = load(dread[j] + cell), Cj[j] = Cread[j] + row * N;
          for (int i = 0; i < LINKS; ++i) dpast_t[i] = load(dout[1 + i] + cell), Hi[i] = past[i] + at + k * ROW;
          for (int n = 0; n < N; ++n) {
            v8 gn = g[n] + dy * Ct[n], c = accC[k * N + n] + dy * load(now + n * LANES);
            for (int j = 0; j < READERS; ++j) gn += dread_t[j] * Cj[j][n];
            for (int i = 0; i < LINKS; ++i) c += dpast_t[i] * load(Hi[i] + n * LANES);
            accC[k * N + n] = c;
            accB[k * N + n] += gn * dx;
            toB += gn * Bt[n];
            const v8 a = load(A + n * LANES), h = before ? load(before + n * LANES) : load(start + n * LANES);
            gn *= exp2v(d * a) * keep;
            const v8 q = gn * h;
            toDelta += q * a;
            accA[n] += q * d;
            g[n] = gn;
          }
          store(dU + cell, d * toB);
          // d/dDelta of exp2(Delta*A2) is ln 2 * A2 * exp2(..); sigmoid(raw + bias) = 1 - exp(-Delta)
          store(dRaw + cell, (0.69314718056f * toDelta + x * toB) * (1.0f - exp2v(-LOG2E * d)));
        }
        for (int n = 0; n < N; ++n) {
          carried[block * N + n] = g[n];
          float* dAn = dA + block * ROW + n * LANES;
          store(dAn, load(dAn) + accA[n]);
        }
      }
      for (int k = 0; k < steps; ++k)
        for (int n = 0; n < N; ++n) {
          const size_t row = size_t(b) * s.T + t0 + k;
          dB[row * N + n] = sum(accB[k * N + n]);
          dC[row * N + n] = sum(accC[k * N + n]);
        }
    }
    for (int i = 0; i < s.blocks() * ROW; ++i) dA[i] *= 0.69314718056f;
  }
}

// The inner loops are compiled for each number of states, of links (layers read) and of readers (layers that read this one).
template <typename F> static int for_links(int n, F f) {
  switch (n) {
    case 0: f(std::integral_constant<int, 0>()); return 0;
    case 1: f(std::integral_constant<int, 1>()); return 0;
    case 2: f(std::integral_constant<int, 2>()); return 0;
    case 3: f(std::integral_constant<int, 3>()); return 0;
    case 4: f(std::integral_constant<int, 4>()); return 0;
    default: return 1;
  }
}
template <typename F> static int for_states(int N, int half, F f) {
  switch (N * 2 + half) {
    case 8 * 2: f(std::integral_constant<int, 8>(), float()); return 0;
    case 8 * 2 + 1: f(std::integral_constant<int, 8>(), uint16_t()); return 0;
    case 16 * 2: f(std::integral_constant<int, 16>(), float()); return 0;
    case 16 * 2 + 1: f(std::integral_constant<int, 16>(), uint16_t()); return 0;
    default: return 1;
  }
}

extern "C" int scan_forward(int B, int T, int E, int N, int links, int half, const float* u, const float* raw,
                            const float* bias, const float* A2, const float* Bm, const float* Cm, const int32_t* pos,
                            const float* h0, float* hT, void* H, void* const* past, float* const* out, float* delta) {
  int bad = 0;
  const int wrong = for_states(N, half, [&](auto n, auto s) {
    using S = decltype(s);
    bad = for_links(links, [&](auto l) {
      forward<n.value, S, l.value>({B, T, E, N}, u, raw, bias, A2, Bm, Cm, pos, h0, hT, (S*)H, (const S* const*)past, out, delta);
    });
  });
  return wrong | bad;
}

extern "C" int scan_backward(int B, int T, int E, int N, int links, int half, int readers, const float* u,
                             const float* delta, const float* A2, const float* Bm, const float* Cm, const int32_t* pos,
                             const float* h0, const void* H, void* const* past, const float* const* dout,
                             const float* const* dread, const float* const* Cread, float* dU, float* dRaw, float* dB,
                             float* dC, float* dA2) {
  int bad = 0;
  const int wrong = for_states(N, half, [&](auto n, auto s) {
    using S = decltype(s);
    bad = for_links(links, [&](auto l) {
      bad |= for_links(readers, [&](auto r) {
        backward<n.value, S, l.value, r.value>({B, T, E, N}, u, delta, A2, Bm, Cm, pos, h0, (const S*)H,
                                               (const S* const*)past, dout, dread, Cread, dU, dRaw, dB, dC, dA2);
      });
    });
  });
  return wrong | bad;
}
