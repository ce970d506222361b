using CharLm.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace Serve;

/// <summary>A model that has learned nothing: it serves at the speed of one that has.</summary>
internal static class RandomModel
{
    /// <summary>The weights are drawn on the CPU: the same on every device.</summary>
    public static ByteLanguageModel Create(ModelConfig sizes, ScalarType attentionType, ulong seed, Device device)
    {
        random.manual_seed((long)seed);
        var model = new ByteLanguageModel(sizes, attentionType);

        // Training starts with a head of zeros, with which every byte would be as likely as any other.
        using (no_grad())
        {
            foreach (var (name, weight) in model.named_parameters())
            {
                if (name.StartsWith("lm_head.", StringComparison.Ordinal))
                {
                    nn.init.normal_(weight, 0, 1 / Math.Sqrt(sizes.Dim));
                }
            }
        }

        model.to(device);
        return model;
    }
}
