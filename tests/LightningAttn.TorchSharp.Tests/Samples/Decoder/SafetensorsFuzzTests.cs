using System.Text;
using System.Text.RegularExpressions;
using CsCheck;
using MiniMax.Safetensors;

namespace LightningAttn.Tests.Samples.Decoder;

/// <summary>Whatever bytes a file has, the reader reads it or says what is wrong.</summary>
internal sealed partial class SafetensorsFuzzTests
{
    private const int Iterations = 2000;

    private const string Header =
        """
        {"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
         "b": {"dtype": "BOOL", "shape": [4], "data_offsets": [24, 28]},
         "c": {"dtype": "I64", "shape": [], "data_offsets": [28, 36]}}
        """;

    private static readonly string[] s_pieces =
    [
        "{", "}", "[", "]", ",", ":", "\"", "0", "9", "-1", "1e9", "9223372036854775807", "18446744073709551615",
        "null", "true", "\\ud800", "\xC3", "\"a\"", "\"dtype\":", "\"shape\":[", "\"data_offsets\":[0,8]", "[[[[",
        "{\"x\":{", "0,",
    ];

    private TemporaryFolder _folder = null!;
    private readonly HashSet<string> _faults = [];
    private int _files;

    [SetUp]
    public void CreateFolder()
    {
        _folder = new TemporaryFolder();
        _faults.Clear();
    }

    [TearDown]
    public void DeleteFolder() => _folder.Dispose();

    [Test]
    public void ChangedBytesAndLengths()
    {
        byte[] whole = SafetensorsBytes.Of(Header, 36);
        Assert.That(Read(whole), Is.True, "the file that is damaged is whole");
        Gen<(int At, byte Value)[]> changes = Gen.Select(Gen.Int[0, whole.Length - 1], Gen.Byte).Array[0, 4];
        int refused = 0;
        Gen.Select(changes, Gen.Int[0, whole.Length + 8]).Sample(
            (change, length) =>
            {
                byte[] bytes = [.. whole];
                foreach ((int at, byte value) in change)
                {
                    bytes[at] = value;
                }

                Array.Resize(ref bytes, length % 4 == 0 ? whole.Length : length);
                refused += Read(bytes) ? 0 : 1;
            },
            iter: Iterations,
            threads: 1);
        Assert.That(refused, Is.InRange(Iterations / 2, Iterations));
    }

    /// <summary>Pieces of JSON in the header, whose length stays right, so that deeper rules are reached.</summary>
    [Test]
    public void ChangedHeaders()
    {
        Gen<(int From, int Count, string Piece)> change = Gen.Select(
            Gen.Int[0, Header.Length - 1],
            Gen.Int[0, 6],
            Gen.Int[0, s_pieces.Length - 1].Select(static i => s_pieces[i]));
        change.Array[1, 3].Sample(
            changes =>
            {
                string header = Header;
                foreach ((int from, int count, string piece) in changes)
                {
                    int start = Math.Min(from, header.Length);
                    header = header[..start] + piece + header[Math.Min(header.Length, start + count)..];
                }

                Read(SafetensorsBytes.Of(Encoding.Latin1.GetBytes(header), new byte[36]));
            },
            iter: 3 * Iterations, // a third finds 14 to 22 kinds
            threads: 1);
        Assert.That(_faults, Has.Count.GreaterThan(15), "kinds of faults that were found");
    }

    [Test]
    public void WhatIsWrittenIsRead()
    {
        Gen<byte[]> data = Gen.Byte.Array[0, 40];
        data.Array[0, 5].Sample(
            tensors =>
            {
                RawTensor[] raw = [.. tensors.Select(static (bytes, i) =>
                    new RawTensor($"tensor {i} \"\u00fc\\", "U8", [bytes.Length, 1], bytes))];
                string path = _folder.Write(NextName(), SafetensorsBytes.Write(raw));
                using var scope = torch.NewDisposeScope();
                using SafetensorsFile file = SafetensorsFile.Open(path);
                return file.Tensors.Count == raw.Length && raw.All(tensor =>
                    file.Read(tensor.Name).bytes.SequenceEqual(tensor.Data));
            },
            iter: 300,
            threads: 1);
    }

    /// <summary>Whether the file was read, all of it; any exception but the reader's own gets out.</summary>
    private bool Read(byte[] bytes)
    {
        string path = _folder.Write(NextName(), bytes);
        using var scope = torch.NewDisposeScope();
        try
        {
            using SafetensorsFile file = SafetensorsFile.Open(path);
            foreach (string name in file.Tensors.Keys)
            {
                file.Read(name);
            }

            return true;
        }
        catch (SafetensorsException e)
        {
            _faults.Add(Values().Replace(e.Message[path.Length..], "#"));
            return false;
        }
    }

    /// <summary>What differs between two faults of a kind: names, numbers, and what the JSON reader says.</summary>
    [GeneratedRegex(@"(?<=JSON: ).*|'[^']*'|-?\d+(, \d+)*", RegexOptions.Singleline)]
    private static partial Regex Values();

    private string NextName() => $"{_files++ % 4}.safetensors";
}
