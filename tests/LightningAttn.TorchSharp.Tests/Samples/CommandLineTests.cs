using CharLm;
using Serve;

namespace LightningAttn.Tests.Samples;

/// <summary>What the sample says to options that are wrong.</summary>
internal sealed class CommandLineTests
{
    [Test]
    public void WrongNumbersAreNamed()
    {
        string[] errors = [.. CommandLine.Create(static _ => 0)
            .Parse(["--streams", "0", "--rate", "x", "--seed", "-1", "--device", "tpu", "--slots", "3"])
            .Errors.Select(static error => error.Message)];

        Assert.That(errors, Has.Some.EqualTo("--streams 0: must be a whole number, at least 1"));
        Assert.That(errors, Has.Some.EqualTo("--rate x: must be a number, at least 1E-06"));
        Assert.That(errors, Has.Some.EqualTo("--seed -1: must be a whole number, at least 0"));
        Assert.That(errors, Has.Some.Contains("tpu"));
        Assert.That(errors, Has.Some.Contains("--slots"));
    }

    [Test]
    public void WhatDoesNotFitTogetherIsNamed()
    {
        var options = new Options { Device = "cpu" };
        Refuse(
            () => (options with { ChunkTokens = 200, MaxPrefillTokens = 100 }).ResolveEngine(torch.CPU),
            "--chunk 200 is more than --max-prefill-tokens 100");
        Refuse(
            () => (options with { Heads = 7 }).LoadModel(torch.CPU, ScalarType.Float32),
            "--dim 128 is not a multiple of --heads 7");
        Refuse(() => (options with { Model = "/no/such" }).LoadModel(torch.CPU, ScalarType.Float32), "/no/such");
        Refuse(() => (options with { Data = "/no/such" }).ResolveRequests(torch.CPU), "/no/such");

        static void Refuse(Action use, string message) =>
            Assert.That(use, Throws.TypeOf<UserErrorException>().With.Message.Contains(message));
    }

    [Test]
    public void OneLimitGivesTheOther()
    {
        var options = new Options { Device = "cpu" };
        Assert.That((options with { ChunkTokens = 1000 }).ResolveEngine(torch.CPU).MaxPrefillTokens, Is.EqualTo(1000));
        Assert.That((options with { MaxPrefillTokens = 50 }).ResolveEngine(torch.CPU).ChunkTokens, Is.EqualTo(50));
    }
}
