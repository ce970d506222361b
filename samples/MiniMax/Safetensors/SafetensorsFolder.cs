using System.Text.Json;
using static TorchSharp.torch;

namespace MiniMax.Safetensors;

/// <summary>
/// The tensors of a checkpoint's folder: those of <c>model.safetensors</c>, or of the shards that
/// <c>model.safetensors.index.json</c> lists.
/// </summary>
internal sealed class SafetensorsFolder : IDisposable
{
    private const string SingleFile = "model.safetensors";
    private const string IndexFile = SingleFile + ".index.json";

    private readonly List<SafetensorsFile> _files = [];
    private readonly Dictionary<string, SafetensorsFile> _fileOf = new(StringComparer.Ordinal);

    private SafetensorsFolder()
    {
    }

    public IEnumerable<SafetensorsEntry> Tensors => _fileOf.Select(pair => pair.Value.Tensors[pair.Key]);

    public int Files => _files.Count;

    /// <exception cref="SafetensorsException">A file is missing, cannot be read or breaks a rule of the format, or the
    /// index and the shards hold different tensors.</exception>
    public static SafetensorsFolder Open(string folder)
    {
        var opened = new SafetensorsFolder();
        try
        {
            var index = Path.Combine(folder, IndexFile);
            if (File.Exists(index))
            {
                opened.AddShards(folder, index);
            }
            else
            {
                opened.Add(Path.Combine(folder, SingleFile));
            }

            return opened;
        }
        catch
        {
            opened.Dispose();
            throw;
        }
    }

    /// <inheritdoc cref="SafetensorsFile.ReadInto"/>
    public void ReadInto(string name, Tensor destination) => _fileOf[name].ReadInto(name, destination);

    public void Dispose() => _files.ForEach(file => file.Dispose());

    private SafetensorsFile Add(string path)
    {
        var file = SafetensorsFile.Open(path);
        _files.Add(file);
        foreach (var name in file.Tensors.Keys)
        {
            if (!_fileOf.TryAdd(name, file))
            {
                throw new SafetensorsException(path, $"tensor '{name}' is in {_fileOf[name].Path} too");
            }
        }

        return file;
    }

    private void AddShards(string folder, string index)
    {
        var shardOf = ReadWeightMap(index);
        foreach (var shard in shardOf.Values.Distinct(StringComparer.Ordinal))
        {
            Add(Path.Combine(folder, shard));
        }

        foreach (var (name, shard) in shardOf)
        {
            if (!_fileOf.TryGetValue(name, out var file) || Path.GetFileName(file.Path) != shard)
            {
                throw new SafetensorsException(index, $"says that tensor '{name}' is in {shard}, but it is not");
            }
        }

        if (_fileOf.Keys.FirstOrDefault(name => !shardOf.ContainsKey(name)) is { } unlisted)
        {
            throw new SafetensorsException(index, $"does not list tensor '{unlisted}' of {_fileOf[unlisted].Path}");
        }
    }

    private static Dictionary<string, string> ReadWeightMap(string index)
    {
        try
        {
            using var document = JsonDocument.Parse(
                File.ReadAllBytes(index), new JsonDocumentOptions { MaxDepth = 8, AllowDuplicateProperties = false });
            if (document.RootElement.ValueKind != JsonValueKind.Object
                || !document.RootElement.TryGetProperty("weight_map", out var map)
                || map.ValueKind != JsonValueKind.Object)
            {
                throw new SafetensorsException(index, "has no object weight_map");
            }

            return map.EnumerateObject().ToDictionary(pair => pair.Name, pair => ShardName(index, pair.Value));
        }
        catch (Exception e) when (
            e is not SafetensorsException
            and (IOException or UnauthorizedAccessException or JsonException or InvalidOperationException))
        {
            throw new SafetensorsException(index, $"cannot be read: {e.Message}", e);
        }
    }

    /// <summary>A file of the same folder and no path out of it.</summary>
    private static string ShardName(string index, JsonElement value)
    {
        var name = value.ValueKind == JsonValueKind.String ? value.GetString()! : "";
        return name.EndsWith(".safetensors", StringComparison.Ordinal) && name.IndexOfAny(['/', '\\', ':', '\0']) < 0
            ? name
            : throw new SafetensorsException(index, $"weight_map: {value.GetRawText()} is no name of a shard");
    }
}
