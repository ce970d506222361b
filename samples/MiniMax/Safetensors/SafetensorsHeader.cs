using System.Text.Json;

namespace MiniMax.Safetensors;

/// <summary>
/// The header of a safetensors file: JSON that maps the name of each tensor to
/// <c>{"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}</c>, and <c>__metadata__</c> to strings.
/// </summary>
/// <remarks>Every rule is checked here, so that nothing is allocated or read by what a file merely says.</remarks>
internal sealed class SafetensorsHeader
{
    private const string MetadataName = "__metadata__";
    private const int MaxRank = 16;

    private readonly string _file;
    private readonly Dictionary<string, SafetensorsEntry> _tensors = new(StringComparer.Ordinal);
    private readonly Dictionary<string, string> _metadata = new(StringComparer.Ordinal);

    private SafetensorsHeader(string file) => _file = file;

    public IReadOnlyDictionary<string, SafetensorsEntry> Tensors => _tensors;

    public IReadOnlyDictionary<string, string> Metadata => _metadata;

    /// <param name="file">For messages.</param>
    /// <param name="json">The header.</param>
    /// <param name="dataLength">Bytes of the file after the header.</param>
    /// <exception cref="SafetensorsException">The header breaks a rule of the format.</exception>
    public static SafetensorsHeader Parse(string file, ReadOnlySpan<byte> json, long dataLength)
    {
        var header = new SafetensorsHeader(file);
        try
        {
            header.Read(json, dataLength);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            // The reader reports strings that are no UTF-8 as InvalidOperationException.
            throw new SafetensorsException(file, $"the header is not valid JSON: {e.Message}", e);
        }

        header.CheckLayout(dataLength);
        return header;
    }

    private void Read(ReadOnlySpan<byte> json, long dataLength)
    {
        if (json.IsEmpty || json[0] != (byte)'{')
        {
            throw Error("the header does not begin with '{'");
        }

        var reader = new Utf8JsonReader(json, new JsonReaderOptions { MaxDepth = 3 });
        reader.Read();
        var metadataSeen = false;
        while (NextProperty(ref reader) is { } name)
        {
            reader.Read();
            Require(reader.TokenType == JsonTokenType.StartObject, $"'{name}' is not an object");
            if (name != MetadataName)
            {
                Require(_tensors.TryAdd(name, ReadEntry(ref reader, name, dataLength)), $"tensor '{name}' twice");
                continue;
            }

            Require(!metadataSeen, $"{MetadataName} twice");
            metadataSeen = true;
            ReadMetadata(ref reader);
        }

        // Only white space may follow; anything else is a JsonException.
        reader.Read();
    }

    private void ReadMetadata(ref Utf8JsonReader reader)
    {
        while (NextProperty(ref reader) is { } key)
        {
            reader.Read();
            Require(reader.TokenType == JsonTokenType.String, $"{MetadataName}: '{key}' is not a string");
            Require(_metadata.TryAdd(key, reader.GetString()!), $"{MetadataName}: '{key}' twice");
        }
    }

    private SafetensorsEntry ReadEntry(ref Utf8JsonReader reader, string name, long dataLength)
    {
        string? type = null;
        long[]? shape = null, offsets = null;
        while (NextProperty(ref reader) is { } field)
        {
            reader.Read();
            switch (field)
            {
                case "dtype":
                    Require(type is null, $"tensor '{name}': dtype twice");
                    Require(reader.TokenType == JsonTokenType.String, $"tensor '{name}': dtype is not a string");
                    type = reader.GetString();
                    break;
                case "shape":
                    Require(shape is null, $"tensor '{name}': shape twice");
                    shape = ReadNumbers(ref reader, name, field, MaxRank);
                    break;
                case "data_offsets":
                    Require(offsets is null, $"tensor '{name}': data_offsets twice");
                    offsets = ReadNumbers(ref reader, name, field, 2);
                    break;
                default:
                    throw Error($"tensor '{name}': unknown field '{field}'");
            }
        }

        Require(type is not null, $"tensor '{name}' has no dtype");
        Require(shape is not null, $"tensor '{name}' has no shape");
        Require(offsets is { Length: 2 }, $"tensor '{name}' has no data_offsets [begin, end]");
        return Checked(name, type!, shape!, (offsets![0], offsets[1]), dataLength);
    }

    private SafetensorsEntry Checked(
        string name, string typeName, long[] shape, (long Begin, long End) offsets, long dataLength)
    {
        Require(
            SafetensorsTypes.TryGet(typeName, out var type, out var itemSize),
            $"tensor '{name}': dtype '{typeName}' is none of {SafetensorsTypes.Names}");
        var (begin, end) = offsets;
        Require(begin <= end, $"tensor '{name}': data_offsets [{begin}, {end}] are not in order");
        Require(
            end <= dataLength,
            $"tensor '{name}' ends at byte {end} of the data, of which the file has {dataLength}: is it truncated?");

        // A zero does not excuse the other sizes: torch computes strides of them.
        Int128 size = itemSize, extent = itemSize;
        foreach (var length in shape)
        {
            size *= length;
            extent *= Math.Max(1, length);
            Require(extent <= long.MaxValue, $"tensor '{name}': shape [{string.Join(", ", shape)}] is too large");
        }

        Require(
            size == end - begin,
            $"tensor '{name}': [{string.Join(", ", shape)}] of {typeName} takes {size} bytes, data_offsets "
            + $"[{begin}, {end}] are {end - begin}");
        return new SafetensorsEntry(name, type, shape, begin, end);
    }

    private long[] ReadNumbers(ref Utf8JsonReader reader, string name, string field, int most)
    {
        Require(reader.TokenType == JsonTokenType.StartArray, $"tensor '{name}': {field} is not a list");
        var numbers = new List<long>();
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            var value = -1L;
            Require(
                reader.TokenType == JsonTokenType.Number && reader.TryGetInt64(out value) && value >= 0,
                $"tensor '{name}': {field} holds something that is no whole number from 0 on");
            Require(numbers.Count < most, $"tensor '{name}': {field} has more than {most} numbers");
            numbers.Add(value);
        }

        return [.. numbers];
    }

    /// <summary>Tensors fill the data from the first byte to the last, one after the other.</summary>
    private void CheckLayout(long dataLength)
    {
        var reached = 0L;
        SafetensorsEntry? before = null;
        foreach (var entry in _tensors.Values.OrderBy(entry => entry.Begin).ThenBy(entry => entry.End))
        {
            Require(entry.Begin >= reached, $"tensors '{before?.Name}' and '{entry.Name}' overlap");
            Require(
                entry.Begin == reached,
                $"bytes {reached} to {entry.Begin} of the data, before tensor '{entry.Name}', are no tensor's");
            (reached, before) = (entry.End, entry);
        }

        Require(reached == dataLength, $"the last {dataLength - reached} bytes are no tensor's");
    }

    /// <summary>The name of an object's next property, null at its end.</summary>
    private static string? NextProperty(ref Utf8JsonReader reader) =>
        reader.Read() && reader.TokenType == JsonTokenType.PropertyName ? reader.GetString() : null;

    private void Require(bool holds, string message)
    {
        if (!holds)
        {
            throw Error(message);
        }
    }

    private SafetensorsException Error(string message) => new(_file, message);
}
