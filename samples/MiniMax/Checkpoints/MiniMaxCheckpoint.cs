using CharLm;
using MiniMax.Model;
using MiniMax.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace MiniMax.Checkpoints;

/// <summary>A folder with config.json and the weights, as transformers' save_pretrained writes it.</summary>
internal static class MiniMaxCheckpoint
{
    private const int NamesInMessage = 8;

    /// <summary>The model on the CPU, in fp32.</summary>
    /// <exception cref="UserErrorException">The configuration is not one of this program's models, or the weights are
    /// not exactly its: the message lists those that are missing, not expected, given twice or of another shape.
    /// </exception>
    /// <exception cref="SafetensorsException">A file cannot be read.</exception>
    public static MiniMaxModel Load(string folder)
    {
        var config = ConfigFile.Read(Path.Combine(folder, "config.json"));
        using var weights = SafetensorsFolder.Open(folder);
        var model = new MiniMaxModel(config);
        try
        {
            foreach (var (name, target) in Match(folder, model, weights.Tensors))
            {
                using var scope = NewDisposeScope();
                weights.ReadInto(name, target.View());
            }

            return model;
        }
        catch
        {
            model.Dispose();
            throw;
        }
    }

    /// <summary>Which tensor fills what, before any is read.</summary>
    private static List<(string Name, WeightTarget Target)> Match(
        string folder, MiniMaxModel model, IEnumerable<SafetensorsEntry> tensors)
    {
        var names = new WeightNames(model);
        var matched = new List<(string, WeightTarget)>();
        var taken = new HashSet<WeightTarget>();
        var filled = new Dictionary<string, long>();
        List<string> unexpected = [], misshapen = [], twice = [];
        foreach (var tensor in tensors)
        {
            if (names.Find(tensor.Name) is not { } target)
            {
                if (!names.IsIgnored(tensor.Name))
                {
                    unexpected.Add(tensor.Name);
                }

                continue;
            }

            if (!target.Shape.AsSpan().SequenceEqual(tensor.Shape))
            {
                misshapen.Add($"{tensor.Name} is {Text(tensor.Shape)}, expected {Text(target.Shape)}");
            }

            if (!taken.Add(target))
            {
                twice.Add(tensor.Name);
                continue;
            }

            matched.Add((tensor.Name, target));
            filled[target.ParameterName] =
                filled.GetValueOrDefault(target.ParameterName) + target.Shape.Aggregate(Product);
        }

        var sizes = model.named_parameters().ToDictionary(pair => pair.name, pair => pair.parameter.numel());
        var faults = new[]
        {
            Fault("missing", sizes.Keys.Where(name => filled.GetValueOrDefault(name) < sizes[name])),
            Fault("not expected", unexpected),
            Fault("given twice", [.. twice, .. filled.Keys.Where(name => filled[name] > sizes[name])]),
            Fault("of another shape", misshapen),
        };
        return faults.All(fault => fault is null)
            ? matched
            : throw new UserErrorException(
                $"the weights in {folder} are not those of its config.json: "
                + string.Join("; ", faults.Where(fault => fault is not null)));
    }

    private static string? Fault(string kind, IEnumerable<string> names)
    {
        var list = names.ToList();
        var more = list.Count > NamesInMessage ? $" and {list.Count - NamesInMessage} more" : "";
        return list.Count > 0 ? $"{kind}: {string.Join(", ", list.Take(NamesInMessage))}{more}" : null;
    }

    private static long Product(long a, long b) => a * b;

    private static string Text(long[] shape) => $"[{string.Join(", ", shape)}]";
}
