using LightningAttn.Tests.Support;
using Microsoft.Testing.Platform.Builder;

namespace LightningAttn.Tests;

/// <summary>Runs the tests, or, as <c>--scenario name</c>, one scenario in a process of its own.</summary>
internal static class Program
{
    private static async Task<int> Main(string[] args)
    {
        // Before anything touches TorchSharp: a published executable runs on the libtorch of a Python installation.
        if (!string.IsNullOrEmpty(Environment.GetEnvironmentVariable("LATTN_TORCH_LIB")))
        {
            TorchRuntime.Load();
        }

        if (args is [ChildProcess.ScenarioOption, string name])
        {
            return Scenarios.Run(name);
        }

        ITestApplicationBuilder builder = await TestApplication.CreateBuilderAsync(args);
        SelfRegisteredExtensions.AddSelfRegisteredExtensions(builder, args);
        using ITestApplication application = await builder.BuildAsync();
        return await application.RunAsync();
    }
}
