namespace LightningAttn.Benchmarks;

/// <summary>
/// The operator and its gradients for one head of one sequence, token by token in double:
/// S_t = g S_(t-1) + k_t (x) v_t, o_t = S_t^T q_t.
/// </summary>
internal sealed class HeadRecurrence
{
    private readonly int _tokens;
    private readonly int _d;
    private readonly int _e;

    /// <param name="q">[N, D].</param>
    /// <param name="k">[N, D].</param>
    /// <param name="v">[N, E].</param>
    /// <param name="gradOutput">[N, E], or empty: no gradients are computed.</param>
    /// <param name="decayRate">s >= 0, nats per token.</param>
    /// <param name="initialState">[D, E], or empty for zeros.</param>
    /// <param name="d">D.</param>
    /// <param name="e">E.</param>
    public HeadRecurrence(
        double[] q, double[] k, double[] v, double[] gradOutput, double decayRate, double[] initialState, int d, int e)
    {
        (_tokens, _d, _e) = (q.Length / d, d, e);
        State = initialState.Length > 0 ? [.. initialState] : new double[d * e];
        Output = new double[v.Length];
        GradQ = new double[gradOutput.Length > 0 ? q.Length : 0];
        GradK = new double[GradQ.Length];
        GradV = new double[gradOutput.Length];
        var g = Math.Exp(-decayRate);
        RunForwards(q, k, v, gradOutput, g);
        if (gradOutput.Length > 0)
        {
            RunBackwards(q, k, v, gradOutput, g);
        }
    }

    public double[] Output { get; }

    /// <summary>[D, E], after the last token.</summary>
    public double[] State { get; }

    public double[] GradQ { get; }

    public double[] GradK { get; }

    public double[] GradV { get; }

    // o_t = S_t^T q_t and dq_t = S_t do_t.
    private void RunForwards(double[] q, double[] k, double[] v, double[] gradOutput, double g)
    {
        for (var t = 0; t < _tokens; t++)
        {
            var value = v.AsSpan(t * _e, _e);
            var output = Output.AsSpan(t * _e, _e);
            var gradient = gradOutput.Length > 0 ? gradOutput.AsSpan(t * _e, _e) : default;
            for (var i = 0; i < _d; i++)
            {
                var row = State.AsSpan(i * _e, _e);
                var (key, query) = (k[(t * _d) + i], q[(t * _d) + i]);
                for (var j = 0; j < row.Length; j++)
                {
                    row[j] = (g * row[j]) + (key * value[j]);
                    output[j] += query * row[j];
                }

                if (gradient.Length > 0)
                {
                    GradQ[(t * _d) + i] = Dot(row, gradient);
                }
            }
        }
    }

    // G_t = g G_(t+1) + q_t (x) do_t, dk_t = G_t v_t, dv_t = G_t^T k_t.
    private void RunBackwards(double[] q, double[] k, double[] v, double[] gradOutput, double g)
    {
        var adjoint = new double[_d * _e];
        for (var t = _tokens - 1; t >= 0; t--)
        {
            var value = v.AsSpan(t * _e, _e);
            var gradient = gradOutput.AsSpan(t * _e, _e);
            var gradValue = GradV.AsSpan(t * _e, _e);
            for (var i = 0; i < _d; i++)
            {
                var row = adjoint.AsSpan(i * _e, _e);
                var (key, query) = (k[(t * _d) + i], q[(t * _d) + i]);
                for (var j = 0; j < row.Length; j++)
                {
                    row[j] = (g * row[j]) + (query * gradient[j]);
                    gradValue[j] += key * row[j];
                }

                GradK[(t * _d) + i] = Dot(row, value);
            }
        }
    }

    private static double Dot(ReadOnlySpan<double> a, ReadOnlySpan<double> b)
    {
        var sum = 0.0;
        for (var i = 0; i < a.Length; i++)
        {
            sum += a[i] * b[i];
        }

        return sum;
    }
}
