namespace LightningAttn.Tests.Reference;

/// <summary>
/// The truth: the recurrence in float64, one token at a time, in plain arrays and row-major order, with its adjoint. It
/// is not chunked and uses no torch operator, so it shares no error with the kernels.
/// </summary>
internal static class TokenRecurrence
{
    /// <summary>Sizes and inputs. Q, K [B, Hk, N, D], V [B, Hv, N, E], Rates [Hv], History [B, Hv, D, E].</summary>
    internal sealed record Problem(
        int B,
        int Hk,
        int Hv,
        int N,
        int D,
        int E,
        double[] Q,
        double[] K,
        double[] V,
        double[] Rates,
        double[]? History)
    {
        /// <summary>Tokens per returned state.</summary>
        internal int BlockSize { get; init; } = 256;

        internal double Scale { get; init; } = 1;

        internal int Blocks => (N + BlockSize - 1) / BlockSize;

        /// <summary>Where the tokens of value head h of sequence b begin in q, k / D and in v / E.</summary>
        internal (int Qk, int V) Tokens(int b, int h) => (((b * Hk) + (h / (Hv / Hk))) * N, ((b * Hv) + h) * N);
    }

    /// <summary>Output [B, Hv, N, E] and states [B, Hv, NB + 1, D, E].</summary>
    internal sealed record Result(double[] Output, double[] States);

    internal sealed record Gradients(double[] Q, double[] K, double[] V, double[] Rates, double[] History);

    internal static Result Forward(Problem p)
    {
        int states = p.Blocks + 1;
        int size = p.D * p.E;
        var result = new Result(new double[p.B * p.Hv * p.N * p.E], new double[p.B * p.Hv * states * size]);
        for (int b = 0; b < p.B; b++)
        {
            for (int h = 0; h < p.Hv; h++)
            {
                double[][] state = StatesOf(p, b, h);
                int head = (b * p.Hv) + h;
                for (int block = 0; block < states; block++)
                {
                    int token = Math.Min(block * p.BlockSize, p.N);
                    state[token].CopyTo(result.States, ((head * states) + block) * size);
                }

                (int qk, int v) = p.Tokens(b, h);
                for (int t = 0; t < p.N; t++)
                {
                    for (int e = 0; e < p.E; e++)
                    {
                        double sum = 0;
                        for (int d = 0; d < p.D; d++)
                        {
                            sum += state[t + 1][(d * p.E) + e] * p.Q[((qk + t) * p.D) + d];
                        }

                        result.Output[((v + t) * p.E) + e] = p.Scale * sum;
                    }
                }
            }
        }

        return result;
    }

    /// <summary>
    /// Gradients given those of the output and of every state, with the adjoint state
    /// <c>G_t = scale q_t (x) do_t + A_t</c>, <c>A_(t-1) = g G_t + dS_(t-1)</c>, <c>A_N = dS_N</c>:
    /// <c>dq_t = scale S_t do_t, dk_t = G_t v_t, dv_t = G_t^T k_t, ds = -sum_t &lt;G_t, g S_(t-1)&gt;</c>.
    /// </summary>
    internal static Gradients Backward(Problem p, double[]? gradOutput, double[]? gradStates)
    {
        int states = p.Blocks + 1;
        int size = p.D * p.E;
        gradOutput ??= new double[p.B * p.Hv * p.N * p.E];
        gradStates ??= new double[p.B * p.Hv * states * size];
        var result = new Gradients(
            new double[p.Q.Length],
            new double[p.K.Length],
            new double[p.V.Length],
            new double[p.Hv],
            new double[p.B * p.Hv * size]);
        for (int b = 0; b < p.B; b++)
        {
            for (int h = 0; h < p.Hv; h++)
            {
                double[][] state = StatesOf(p, b, h);
                double g = Math.Exp(-p.Rates[h]);
                int head = (b * p.Hv) + h;
                (int qk, int v) = p.Tokens(b, h);
                Span<double> adjoint = new double[size];
                Accumulate(adjoint, gradStates.AsSpan(((head * states) + states - 1) * size, size));
                for (int t = p.N - 1; t >= 0; t--)
                {
                    int tokenQk = (qk + t) * p.D;
                    int tokenV = (v + t) * p.E;
                    double decayGradient = 0;
                    for (int d = 0; d < p.D; d++)
                    {
                        for (int e = 0; e < p.E; e++)
                        {
                            int i = (d * p.E) + e;
                            double output = p.Scale * gradOutput[tokenV + e];
                            adjoint[i] += p.Q[tokenQk + d] * output;
                            result.Q[tokenQk + d] += state[t + 1][i] * output;
                            result.K[tokenQk + d] += adjoint[i] * p.V[tokenV + e];
                            result.V[tokenV + e] += adjoint[i] * p.K[tokenQk + d];
                            decayGradient -= adjoint[i] * g * state[t][i];
                            adjoint[i] *= g;
                        }
                    }

                    result.Rates[h] += decayGradient;
                    if (t % p.BlockSize == 0)
                    {
                        Accumulate(adjoint, gradStates.AsSpan(((head * states) + (t / p.BlockSize)) * size, size));
                    }
                }

                adjoint.CopyTo(result.History.AsSpan(head * size, size));
            }
        }

        return result;
    }

    /// <summary>The states of one head before every token and after the last one: entry t is S_t.</summary>
    private static double[][] StatesOf(Problem p, int b, int h)
    {
        int size = p.D * p.E;
        double g = Math.Exp(-p.Rates[h]);
        (int qk, int v) = p.Tokens(b, h);
        var states = new double[p.N + 1][];
        states[0] = p.History is null
            ? new double[size]
            : p.History.AsSpan(((b * p.Hv) + h) * size, size).ToArray();
        for (int t = 0; t < p.N; t++)
        {
            states[t + 1] = new double[size];
            for (int d = 0; d < p.D; d++)
            {
                double key = p.K[((qk + t) * p.D) + d];
                for (int e = 0; e < p.E; e++)
                {
                    int i = (d * p.E) + e;
                    states[t + 1][i] = (g * states[t][i]) + (key * p.V[((v + t) * p.E) + e]);
                }
            }
        }

        return states;
    }

    private static void Accumulate(Span<double> sum, ReadOnlySpan<double> term)
    {
        for (int i = 0; i < sum.Length; i++)
        {
            sum[i] += term[i];
        }
    }
}
