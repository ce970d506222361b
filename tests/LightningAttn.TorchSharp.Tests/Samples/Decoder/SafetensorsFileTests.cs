using MiniMax.Safetensors;

namespace LightningAttn.Tests.Samples.Decoder;

/// <summary>What the sample's reader reads, and every rule by which it refuses.</summary>
internal sealed class SafetensorsFileTests
{
    private TemporaryFolder _folder = null!;

    [SetUp]
    public void CreateFolder() => _folder = new TemporaryFolder();

    [TearDown]
    public void DeleteFolder() => _folder.Dispose();

    [TestCase("F64", ScalarType.Float64, 8)]
    [TestCase("F32", ScalarType.Float32, 4)]
    [TestCase("F16", ScalarType.Float16, 2)]
    [TestCase("BF16", ScalarType.BFloat16, 2)]
    [TestCase("I64", ScalarType.Int64, 8)]
    [TestCase("I32", ScalarType.Int32, 4)]
    [TestCase("I16", ScalarType.Int16, 2)]
    [TestCase("I8", ScalarType.Int8, 1)]
    [TestCase("U8", ScalarType.Byte, 1)]
    [TestCase("BOOL", ScalarType.Bool, 1)]
    public void EveryTypeIsReadBitForBit(string type, ScalarType expected, int size)
    {
        byte[] data = [.. Enumerable.Range(0, 6 * size).Select(static i => (byte)(i % 2))];
        using SafetensorsFile file = Open(SafetensorsBytes.Write(
        [
            new RawTensor("before", "U8", [3], [1, 2, 3]),
            new RawTensor("x", type, [2, 3], data),
        ]));
        using Tensor x = file.Read("x");

        Assert.That(x.dtype, Is.EqualTo(expected));
        Assert.That(x.shape, Is.EqualTo(new long[] { 2, 3 }));
        Assert.That(x.bytes.ToArray(), Is.EqualTo(data));
    }

    [Test]
    public void ScalarsEmptyTensorsAndMetadataAreRead()
    {
        using SafetensorsFile file = Open(SafetensorsBytes.Of(
            """
            {"__metadata__": {"format": "pt", "note": "\u00fc"},
             "empty": {"dtype": "F32", "shape": [0, 5], "data_offsets": [4, 4]},
             "scalar": {"data_offsets": [0, 4], "shape": [], "dtype": "F32"}}
            """, 4));
        using Tensor scalar = file.Read("scalar");
        using Tensor empty = file.Read("empty");

        Assert.That(scalar.dim(), Is.Zero);
        Assert.That(scalar.item<float>(), Is.Zero);
        Assert.That(empty.shape, Is.EqualTo(new long[] { 0, 5 }));
        Assert.That(file.Metadata["note"], Is.EqualTo("ü"));
        Assert.That(file.Tensors.Keys, Is.EquivalentTo(new[] { "empty", "scalar" }));
    }

    [Test]
    public void AFileWithoutTensorsIsRead()
    {
        using SafetensorsFile file = Open(SafetensorsBytes.Of("{}      ", 0));
        Assert.That(file.Tensors, Is.Empty);
    }

    [Test]
    public void ATensorIsReadIntoOtherTypesAndViews()
    {
        using var scope = torch.NewDisposeScope();
        using SafetensorsFile file = Open(SafetensorsBytes.Write(
            [new RawTensor("x", "F32", [2], [0, 0, 0x80, 0x3F, 0, 0, 0, 0x40])]));
        Tensor contiguous = torch.zeros(3, 2);
        Tensor strided = torch.zeros(2, 3);
        Tensor other = torch.zeros(2, ScalarType.Float64);
        file.ReadInto("x", contiguous.select(0, 1));
        file.ReadInto("x", strided.select(1, 1));
        file.ReadInto("x", other);

        Assert.That(contiguous.data<float>().ToArray(), Is.EqualTo(new[] { 0f, 0, 1, 2, 0, 0 }));
        Assert.That(strided.data<float>().ToArray(), Is.EqualTo(new[] { 0f, 1, 0, 0, 2, 0 }));
        Assert.That(other.data<double>().ToArray(), Is.EqualTo(new[] { 1.0, 2 }));
    }

    [Test]
    public void WrongUseIsNamed()
    {
        using SafetensorsFile file = Open(SafetensorsBytes.Write([new RawTensor("x", "U8", [2], [1, 2])]));
        using Tensor three = torch.zeros(3);

        Assert.That(() => file.Read("y"), Refuses("has no tensor 'y'"));
        Assert.That(() => file.ReadInto("x", three), Refuses("tensor 'x' is [2], expected [3]"));
    }

    [Test]
    public void AFileThatCannotBeReadIsNamed()
    {
        Assert.That(() => SafetensorsFile.Open(_folder.File("none")), Refuses("none: cannot be read"));
        Assert.That(() => SafetensorsFile.Open(_folder.Path), Refuses("cannot be read"));
    }

    [Test]
    public void AFileThatShrinksIsNoticed()
    {
        string path = _folder.Write(
            "x", SafetensorsBytes.Write([new RawTensor("x", "U8", [1000], new byte[1000])]));
        using SafetensorsFile file = SafetensorsFile.Open(path);
        using var cut = new FileStream(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite | FileShare.Delete);
        cut.SetLength(500);

        Assert.That(() => file.Read("x"), Refuses("became shorter"));
    }

    [TestCase(new byte[0], "has 0 bytes")]
    [TestCase(new byte[] { 1, 0, 0 }, "has 3 bytes")]
    [TestCase(new byte[] { 2, 0, 0, 0, 0, 0, 0, 0, (byte)'{' }, "its header has 2 bytes, but ends after 1")]
    [TestCase(new byte[] { 0, 0, 0, 0, 0, 0, 0, 0 }, "does not begin with '{'")]
    [TestCase(new byte[] { 1, 0xE1, 0xF5, 5, 0, 0, 0, 0 }, "has 100000001 bytes, more than the 100000000")]
    [TestCase(new byte[] { 255, 255, 255, 255, 255, 255, 255, 255 }, "more than the 100000000")]
    public void AWrongLengthIsRefused(byte[] bytes, string message) =>
        Assert.That(() => Open(bytes), Refuses(message));

    [TestCase("[1]", "does not begin with '{'")]
    [TestCase(" {}", "does not begin with '{'")]
    [TestCase("{", "not valid JSON")]
    [TestCase("{} x", "not valid JSON")]
    [TestCase("{}{}", "not valid JSON")]
    [TestCase("{\"a\": 1,}", "'a' is not an object")]
    [TestCase("{\"a\": {\"dtype\": {\"b\": {\"c\": 1}}}}", "dtype is not a string")]
    [TestCase("{\"a\": {\"shape\": [[1]]}}", "depth of 3 has been exceeded")]
    [TestCase("{\"a\": {\"shape\": {}}}", "shape is not a list")]
    [TestCase("{\"\xFF\": {}}", "not valid JSON")]
    [TestCase("{\"\\ud800\": {}}", "not valid JSON")]
    [TestCase("{\"__metadata__\": []}", "'__metadata__' is not an object")]
    [TestCase("{\"__metadata__\": {\"a\": 1}}", "'a' is not a string")]
    [TestCase("{\"__metadata__\": {\"a\": \"1\", \"a\": \"2\"}}", "'a' twice")]
    [TestCase("{\"__metadata__\": {}, \"__metadata__\": {}}", "__metadata__ twice")]
    public void AWrongHeaderIsRefused(string header, string message) =>
        Assert.That(() => Open(SafetensorsBytes.Of(header, 0)), Refuses(message));

    [TestCase("\"dtype\": \"F8_E4M3\", \"shape\": [8], \"data_offsets\": [0, 8]", "dtype 'F8_E4M3' is none of F64,")]
    [TestCase("\"dtype\": \"f32\", \"shape\": [2], \"data_offsets\": [0, 8]", "dtype 'f32' is none of")]
    [TestCase("\"dtype\": 4, \"shape\": [2], \"data_offsets\": [0, 8]", "dtype is not a string")]
    [TestCase("\"shape\": [2], \"data_offsets\": [0, 8]", "has no dtype")]
    [TestCase("\"dtype\": \"F32\", \"data_offsets\": [0, 8]", "has no shape")]
    [TestCase("\"dtype\": \"F32\", \"shape\": [2]", "has no data_offsets")]
    [TestCase("\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [8]", "has no data_offsets [begin, end]")]
    [TestCase("\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 4, 8]", "more than 2 numbers")]
    [TestCase("\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8], \"x\": 1", "unknown field 'x'")]
    [TestCase("\"dtype\": \"F32\", \"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]", "dtype twice")]
    [TestCase("\"dtype\": \"F32\", \"shape\": [2], \"shape\": [2], \"data_offsets\": [0, 8]", "shape twice")]
    [TestCase(
        "\"data_offsets\": [0, 8], \"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]", "data_offsets twice")]
    [TestCase("\"dtype\": \"F32\", \"shape\": 2, \"data_offsets\": [0, 8]", "shape is not a list")]
    [TestCase("\"dtype\": \"F32\", \"shape\": [-2], \"data_offsets\": [0, 8]", "no whole number from 0 on")]
    [TestCase("\"dtype\": \"F32\", \"shape\": [2.5], \"data_offsets\": [0, 8]", "no whole number from 0 on")]
    [TestCase("\"dtype\": \"F32\", \"shape\": [\"2\"], \"data_offsets\": [0, 8]", "no whole number from 0 on")]
    [TestCase("\"dtype\": \"F32\", \"shape\": [null], \"data_offsets\": [0, 8]", "no whole number from 0 on")]
    [TestCase("\"dtype\": \"F32\", \"shape\": [9223372036854775808], \"data_offsets\": [0, 8]", "no whole number")]
    [TestCase("\"dtype\": \"F32\", \"shape\": [1e400], \"data_offsets\": [0, 8]", "no whole number")]
    [TestCase(
        "\"dtype\": \"F32\", \"shape\": [4294967296, 4294967296, 4294967296], \"data_offsets\": [0, 8]",
        "is too large")]
    [TestCase(
        "\"dtype\": \"F32\", \"shape\": [0, 4611686018427387904, 4], \"data_offsets\": [0, 0]", "is too large")]
    [TestCase("\"dtype\": \"F32\", \"shape\": [9223372036854775807], \"data_offsets\": [0, 8]", "is too large")]
    [TestCase(
        "\"dtype\": \"U8\", \"shape\": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,8], \"data_offsets\": [0, 8]",
        "more than 16 numbers")]
    [TestCase("\"dtype\": \"F32\", \"shape\": [3], \"data_offsets\": [0, 8]", "[3] of F32 takes 12 bytes")]
    [TestCase("\"dtype\": \"F32\", \"shape\": [], \"data_offsets\": [0, 8]", "[] of F32 takes 4 bytes")]
    [TestCase("\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [8, 0]", "are not in order")]
    [TestCase("\"dtype\": \"F32\", \"shape\": [4], \"data_offsets\": [0, 16]", "is it truncated?")]
    [TestCase(
        "\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [4, 8]", "bytes 0 to 4 of the data, before tensor 'a'")]
    [TestCase("\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]", "the last 4 bytes are no tensor's")]
    public void AWrongTensorIsRefused(string fields, string message) =>
        Assert.That(() => Open(SafetensorsBytes.Of($"{{\"a\": {{{fields}}}}}", 8)), Refuses(message));

    [Test]
    public void TensorsThatOverlapOrLeaveHolesAreRefused()
    {
        Assert.That(() => OpenPair((0, 8), (4, 12), 12), Refuses("tensors 'a' and 'b' overlap"));
        Assert.That(() => OpenPair((4, 12), (0, 8), 12), Refuses("tensors 'b' and 'a' overlap"));
        Assert.That(() => OpenPair((0, 8), (0, 8), 8), Refuses("overlap"));
        Assert.That(() => OpenPair((0, 8), (12, 20), 20), Refuses("bytes 8 to 12 of the data, before tensor 'b'"));

        SafetensorsFile OpenPair((int Begin, int End) a, (int Begin, int End) b, int data) =>
            Open(SafetensorsBytes.Of($"{{\"a\": {Entry(a)}, \"b\": {Entry(b)}}}", data));

        static string Entry((int Begin, int End) at) =>
            $"{{\"dtype\": \"U8\", \"shape\": [{at.End - at.Begin}], \"data_offsets\": [{at.Begin}, {at.End}]}}";
    }

    [Test]
    public void TwoTensorsOfOneNameAreRefused()
    {
        const string Entry = "\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]}";
        Assert.That(() => Open(SafetensorsBytes.Of($"{{{Entry}, {Entry}}}", 8)), Refuses("tensor 'a' twice"));
    }

    [Test]
    public void ABoolThatIsNoneIsRefused()
    {
        using SafetensorsFile file = Open(SafetensorsBytes.Write([new RawTensor("x", "BOOL", [2], [1, 2])]));
        Assert.That(() => file.Read("x"), Refuses("a BOOL is neither 0 nor 1"));
    }

    [Test]
    public void NothingIsLeftBehind()
    {
        using SafetensorsFile file = Open(SafetensorsBytes.Write([new RawTensor("x", "BOOL", [2], [1, 2])]));
        using Tensor destination = torch.zeros(2);
        long before = Tensor.TotalCount;
        Assert.That(() => file.Read("x"), Throws.Exception);
        Assert.That(() => file.ReadInto("x", destination), Throws.Exception);
        Assert.That(Tensor.TotalCount, Is.EqualTo(before));
    }

    private SafetensorsFile Open(byte[] bytes) => SafetensorsFile.Open(_folder.Write("x.safetensors", bytes));

    private static NUnit.Framework.Constraints.IResolveConstraint Refuses(string message) =>
        Throws.TypeOf<SafetensorsException>().With.Message.Contains(message);
}
