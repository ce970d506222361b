using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Modules;

/// <summary>The argument checks of the modules, as <see cref="Check"/> has those of the operators.</summary>
internal static class ModuleCheck
{
    /// <summary>Channels of a head.</summary>
    internal static long HeadDim(long hiddenSize, long numHeads, long? headDim)
    {
        AtLeastOne(hiddenSize, "hidden_size");
        AtLeastOne(numHeads, "num_heads");
        if (headDim is { } given)
        {
            AtLeastOne(given, "head_dim");
            return given;
        }

        return hiddenSize % numHeads == 0
            ? hiddenSize / numHeads
            : throw new ArgumentException(
                $"hidden_size is {hiddenSize}, which {numHeads} heads do not divide; give head_dim.", "head_dim");
    }

    /// <summary>Channels that rotary embedding turns, 0 for none.</summary>
    internal static long Options(LightningAttentionOptions options, long numHeads, long headDim)
    {
        Defined(options.Layout, nameof(options.Layout));
        Defined(options.QkvActivation, nameof(options.QkvActivation));
        Defined(options.GateActivation, nameof(options.GateActivation));
        Defined(options.Norm, nameof(options.Norm));
        Require(
            double.IsFinite(options.NormEps) && options.NormEps >= 0,
            $"options.NormEps is {options.NormEps}, expected a finite number >= 0.");
        Require(
            options.Scale is not { } scale || double.IsFinite(scale),
            $"options.Scale is {options.Scale}, expected a finite number.");
        Require(
            double.IsFinite(options.RopeTheta) && options.RopeTheta > 0,
            $"options.RopeTheta is {options.RopeTheta}, expected a finite number > 0.");

        Require(
            options.OperatorType is null or ScalarType.Float16 or ScalarType.BFloat16 or ScalarType.Float32
                or ScalarType.Float64,
            $"options.OperatorType is {options.OperatorType}, expected float16, bfloat16, float32 or float64.");

        long channels = numHeads * headDim;
        Require(
            options.NormGroups >= 1 && channels % options.NormGroups == 0,
            $"options.NormGroups is {options.NormGroups}, expected a divisor of num_heads * head_dim = {channels}.");
        Require(
            options.NormGroups == 1 || options.Norm == OutputNorm.RMSNorm,
            $"options.NormGroups is {options.NormGroups}, but LayerNorm has one group.");

        Require(
            options.RotaryFactor is >= 0 and <= 1,
            $"options.RotaryFactor is {options.RotaryFactor}, expected 0 to 1.");
        var rotarySize = (long)(headDim * options.RotaryFactor);
        Require(
            rotarySize % 2 == 0,
            $"options.RotaryFactor is {options.RotaryFactor}, which turns {rotarySize} of head_dim = {headDim} channels; "
            + "expected an even number.");
        return rotarySize;
    }

    internal static float[] Rates(IReadOnlyList<float> rates, long numHeads)
    {
        if (rates.Count != numHeads)
        {
            throw new ArgumentException(
                $"decay_rates has {rates.Count} rates, expected one per head, {numHeads}.", "decay_rates");
        }

        for (int head = 0; head < rates.Count; head++)
        {
            DecayRates.CheckValue(rates[head], "decay_rates", head);
        }

        return [.. rates];
    }

    internal static void Input(Tensor x, long hiddenSize)
    {
        Check.Usable(x, "x");
        if (x.dim() != 3 || x.size(2) != hiddenSize)
        {
            throw Check.Unexpected(x, "x", $"[B, N, {hiddenSize}]");
        }
    }

    internal static void PaddingMask(Tensor? mask, Tensor x, bool hasState)
    {
        if (mask is null)
        {
            return;
        }

        const string Name = "padding_mask";
        Check.Usable(mask, Name);
        Check.SameDevice(mask, Name, x, "x");
        if (mask.dim() != 2 || mask.size(0) != x.size(0) || mask.size(1) != x.size(1))
        {
            throw Check.Unexpected(mask, Name, $"[B, N] = [{x.size(0)}, {x.size(1)}]");
        }

        if (hasState && mask.device_type == DeviceType.CPU && mask.size(1) > 1)
        {
            PaddingIsLeft(mask, Name);
        }
    }

    /// <summary>Of a state that knows itself what is padding.</summary>
    internal static void NoPaddingMask(Tensor? mask, string reason)
    {
        if (mask is not null)
        {
            throw new ArgumentException($"padding_mask is given, expected null: {reason}.", "padding_mask");
        }
    }

    /// <summary>Positions of <paramref name="count"/> tokens of x, which a layer with rotary embedding needs.</summary>
    internal static void Positions(Tensor? positions, string shape, long count, Tensor x, LightningAttention layer)
    {
        const string Name = "positions";
        if (positions is null)
        {
            if (layer.HasRotary)
            {
                throw new ArgumentException(
                    $"{Name} is null, expected {shape} = [{count}], as the layer has rotary embedding.", Name);
            }

            return;
        }

        Check.Usable(positions, Name);
        Check.SameDevice(positions, Name, x, "x");
        if (positions.dim() != 1 || positions.size(0) != count || positions.dtype != ScalarType.Int64)
        {
            throw Check.Unexpected(positions, Name, $"{shape} = [{count}], int64");
        }
    }

    private static void PaddingIsLeft(Tensor mask, string name)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor real = mask.ne(0);
        long tokens = real.size(1);
        Tensor ends = real.narrow(1, 0, tokens - 1).logical_and(real.narrow(1, 1, tokens - 1).logical_not());
        if (ends.any().item<bool>())
        {
            Tensor first = ends.nonzero()[0];
            throw new ArgumentException(
                $"{name} has padding behind token {first[1].item<long>()} of sequence {first[0].item<long>()}, expected "
                + "padding at the left alone: the state would decay on it.",
                name);
        }
    }

    private static void AtLeastOne(long value, string name)
    {
        if (value < 1)
        {
            throw new ArgumentException($"{name} is {value}, expected at least 1.", name);
        }
    }

    private static void Defined<T>(T value, string name)
        where T : struct, Enum =>
        Require(Enum.IsDefined(value), $"options.{name} is {value}, which is no {typeof(T).Name}.");

    private static void Require(bool holds, string message)
    {
        if (!holds)
        {
            throw new ArgumentException(message, "options");
        }
    }
}
