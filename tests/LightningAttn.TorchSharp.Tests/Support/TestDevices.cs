using NUnit.Framework.Internal;

namespace LightningAttn.Tests.Support;

/// <summary>The devices that every operator test runs on.</summary>
internal static class TestDevices
{
    internal const string CudaCategory = "Cuda";

    /// <summary>To be given to TestFixtureSource: the fixture takes a DeviceType.</summary>
    internal static IEnumerable<TestFixtureData> All()
    {
        yield return new TestFixtureData(DeviceType.CPU);
        var cuda = new TestFixtureData(DeviceType.CUDA);
        cuda.Properties.Add(PropertyNames.Category, CudaCategory);
        yield return cuda;
    }

    /// <summary>Skips the fixture with the reason when its device is missing, or fails it where one is
    /// demanded.</summary>
    internal static void Require(DeviceType device)
    {
        if (device != DeviceType.CUDA || torch.cuda.is_available())
        {
            return;
        }

        const string Reason = "no CUDA device: torch.cuda.is_available() is false";
        if (Environment.GetEnvironmentVariable("LATTN_REQUIRE_CUDA") == "1")
        {
            Assert.Fail($"{Reason}, and LATTN_REQUIRE_CUDA=1 demands one.");
        }

        Assert.Ignore(Reason);
    }
}
