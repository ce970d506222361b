using LightningAttn.Modules;

namespace LightningAttn.Tests.Reference;

/// <summary>
/// A linear-attention layer in float64 on the CPU from its formulas, one token at a time, by torch operators alone, so
/// that autograd gives its gradients. It takes the weights by their names in state_dict.
/// </summary>
internal sealed class LayerReference(
    LightningAttentionOptions options, long heads, long headDim, IReadOnlyList<float> rates, Dictionary<string, Tensor> weights)
{
    /// <param name="x">[N, hidden], float64: one sequence.</param>
    /// <returns>[N, hidden].</returns>
    internal Tensor Forward(Tensor x)
    {
        (Tensor q, Tensor k, Tensor v) = Projections(x);
        if (options.QkNorm)
        {
            q = Rms(q, weights[$"{options.Names.QueryNorm}.weight"]);
            k = Rms(k, weights[$"{options.Names.KeyNorm}.weight"]);
        }

        (q, k) = (Turn(q), Turn(k));
        Tensor attended = Recurrence(q, k, v);
        Tensor gate = options.LowRankGate
            ? Project(Project(x, $"{options.Names.Gate}.0"), $"{options.Names.Gate}.1")
            : Project(x, options.Names.Gate);
        return Project(Activate(gate, options.GateActivation) * Normalize(attended), options.Names.Output);
    }

    /// <summary>[N, H, D] each.</summary>
    private (Tensor Q, Tensor K, Tensor V) Projections(Tensor x)
    {
        LightningAttentionNames names = options.Names;
        if (options.Layout == QkvLayout.Separate)
        {
            Tensor[] parts = [.. new[] { names.Query, names.Key, names.Value }.Select(name =>
                Activate(Project(x, name), options.QkvActivation).reshape(-1, heads, headDim))];
            return (parts[0], parts[1], parts[2]);
        }

        Tensor all = Activate(Project(x, names.Qkv), options.QkvActivation);
        Tensor Part(int i) => options.Layout == QkvLayout.Interleaved
            ? all.reshape(-1, heads, 3, headDim).select(2, i)
            : all.reshape(-1, 3, heads, headDim).select(1, i);
        return (Part(0), Part(1), Part(2));
    }

    private Tensor Recurrence(Tensor q, Tensor k, Tensor v)
    {
        Tensor decay = torch.tensor(rates.Select(static rate => Math.Exp(-(double)rate)).ToArray()).reshape(heads, 1, 1);
        double scale = options.Scale ?? 1 / Math.Sqrt(headDim);
        Tensor state = torch.zeros(heads, headDim, headDim, ScalarType.Float64);
        var outputs = new List<Tensor>();
        for (long t = 0; t < q.size(0); t++)
        {
            state = (decay * state) + (k[t].unsqueeze(-1) * v[t].unsqueeze(-2));
            outputs.Add((q[t].unsqueeze(-1) * state).sum(-2).flatten() * scale);
        }

        return torch.stack(outputs);
    }

    private Tensor Turn(Tensor x)
    {
        var size = (int)(headDim * options.RotaryFactor);
        if (size == 0)
        {
            return x;
        }

        var channels = new List<Tensor>();
        Tensor positions = torch.arange(x.size(0), ScalarType.Float64).unsqueeze(-1);
        for (int i = 0; i < headDim; i++)
        {
            if (i >= size)
            {
                channels.Add(x.select(-1, i));
                continue;
            }

            int half = size / 2;
            int frequency = i % half;
            Tensor angle = positions * Math.Pow(options.RopeTheta, -2.0 * frequency / size);
            Tensor first = x.select(-1, frequency);
            Tensor second = x.select(-1, frequency + half);
            channels.Add(i < half
                ? (first * angle.cos()) - (second * angle.sin())
                : (second * angle.cos()) + (first * angle.sin()));
        }

        return torch.stack(channels, -1);
    }

    private Tensor Normalize(Tensor o)
    {
        Tensor weight = weights[$"{options.Names.Norm}.weight"];
        if (options.Norm == OutputNorm.LayerNorm)
        {
            Tensor centred = o - o.mean([-1], keepdim: true);
            Tensor variance = centred.square().mean([-1], keepdim: true);
            return (centred / (variance + options.NormEps).sqrt() * weight) + weights[$"{options.Names.Norm}.bias"];
        }

        Tensor groups = o.reshape(o.size(0), options.NormGroups, -1);
        return (groups / (groups.square().mean([-1], keepdim: true) + options.NormEps).sqrt()).reshape(o.shape) * weight;
    }

    private Tensor Rms(Tensor x, Tensor weight) =>
        x / (x.square().mean([-1], keepdim: true) + options.NormEps).sqrt() * weight;

    private Tensor Project(Tensor x, string name)
    {
        Tensor y = x.matmul(weights[$"{name}.weight"].t());
        return options.Bias ? y + weights[$"{name}.bias"] : y;
    }

    private static Tensor Activate(Tensor x, Activation activation) => activation switch
    {
        Activation.Identity => x,
        Activation.SiLU => x / (1 + (-x).exp()),
        _ => 1 / (1 + (-x).exp()),
    };
}
