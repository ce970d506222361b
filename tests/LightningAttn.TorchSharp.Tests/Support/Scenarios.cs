using System.Runtime.InteropServices;
using LightningAttn.Interop;

namespace LightningAttn.Tests.Support;

/// <summary>
/// What the tests run in a process of its own: it could end the process, or needs one that has loaded nothing yet. A
/// name may carry a device, <c>name:cuda</c>. Prints what the test reads, and throws what should not happen.
/// </summary>
internal static class Scenarios
{
    internal const int Failed = 3;

    internal static int Run(string name)
    {
        string[] parts = name.Split(':');
        try
        {
            Device Device() => new(parts[1] == "cuda" ? DeviceType.CUDA : DeviceType.CPU);
            Action scenario = parts[0] switch
            {
                nameof(MissingLibrary) => MissingLibrary,
                nameof(UseLibrary) => UseLibrary,
                nameof(LoadTorchByPath) => LoadTorchByPath,
                nameof(BackwardErrors) => () => BackwardErrors(Device()),
                nameof(SecondDerivatives) => () => SecondDerivatives(Device()),
                nameof(SecondDerivativesByGrad) => () => SecondDerivativesByGrad(Device()),
                nameof(LongTraining) => () => LongTraining(Device()),
                nameof(LargeLeaves) => () => LargeLeaves(Device()),
                nameof(CollectDuringCalls) => () => CollectDuringCalls(Device()),
                _ => throw new ArgumentException($"no scenario {name}", nameof(name)),
            };
            scenario();
            return 0;
        }
        catch (Exception error)
        {
            Console.WriteLine(error);
            return Failed;
        }
    }

    /// <summary>The message when none of the places has the library.</summary>
    internal static void MissingLibrary()
    {
        try
        {
            NativeLibraryLoader.Load(["/nowhere/a/lib.so", "/nowhere/b/lib.so"], static _ => null);
            Console.WriteLine("found");
        }
        catch (DllNotFoundException error)
        {
            Console.WriteLine(error.Message);
        }
    }

    /// <summary>The first use of the library, wherever the environment says it lies.</summary>
    internal static void UseLibrary()
    {
        try
        {
            Console.WriteLine(Native.BuildInfo);
        }
        catch (Exception error) when (error is DllNotFoundException or LightningAttnException)
        {
            Console.WriteLine($"{error.GetType().Name}: {error.Message}");
        }
    }

    /// <summary>Runs TorchSharp on a libtorch that was loaded by path.</summary>
    internal static void LoadTorchByPath()
    {
        string folder = TorchRuntime.Load(
            Environment.GetEnvironmentVariable("LATTN_TORCH_LIB") is { Length: > 0 } given
                ? given
                : AppContext.BaseDirectory);
        string again = TorchRuntime.Load();
        using Tensor ones = torch.ones(3);
        using Tensor sum = ones.sum();
        Console.WriteLine($"{folder == again} {sum.item<float>()}");
    }

    /// <summary>
    /// Backward passes that fail inside the library: the caller gets an exception, the cause is kept, and the next
    /// training step works.
    /// </summary>
    internal static void BackwardErrors(Device device)
    {
        foreach (bool valuesOnly in new[] { false, true })
        {
            using var scope = torch.NewDisposeScope();
            var attention = new AttentionCase { N = 70 };
            AttentionCase.Inputs inputs = attention.Create(device);
            Tensor leaf = valuesOnly ? inputs.V : inputs.Q;
            leaf.requires_grad_(true);
            Tensor loss = attention.Call(inputs).Output.sum();

            // Autograd refuses saved tensors that were changed since.
            using (torch.no_grad())
            {
                inputs.K.add_(1);
            }

            ExpectFailure(loss, leaf);
        }

        using (torch.NewDisposeScope())
        {
            var decode = new DecodeCase();
            DecodeCase.Inputs inputs = decode.Create(device);
            Tensor state = decode.States(device, decode.B).requires_grad_(true);
            Tensor loss = Functional.linear_decode_step(inputs.Q, inputs.K, inputs.V, state, inputs.Rates).output.sum();
            inputs.V.add_(1);
            ExpectFailure(loss, state);
        }

        ExpectSuccess(device);
    }

    /// <summary>
    /// Penalties on gradients, whose own gradients the operators do not have: the caller gets an exception in each
    /// case, and the next training step works.
    /// </summary>
    internal static void SecondDerivatives(Device device)
    {
        foreach (HistoryDecay historyDecay in Enum.GetValues<HistoryDecay>())
        {
            var attention = new AttentionCase { N = 70, HistoryDecay = historyDecay };
            for (int input = 0; input < 5; input++)
            {
                using var scope = torch.NewDisposeScope();
                AttentionCase.Inputs inputs = attention.Create(device);
                Tensor leaf = inputs.All.ElementAt(input).requires_grad_(true);
                Penalise(attention.Call(inputs).Output.sum(), leaf, leaf);
            }

            using (torch.NewDisposeScope())
            {
                // The gradient depends on the factor by way of an input and by way of the output's gradient.
                AttentionCase.Inputs inputs = attention.Create(device);
                Tensor factor = torch.ones(1, device: device, requires_grad: true);
                Tensor source = inputs.K.requires_grad_(true);
                Tensor loss = (attention.Call(inputs with { K = source * factor }).Output * factor).sum();
                Penalise(loss, source, factor);
            }
        }

        var decode = new DecodeCase();
        using (torch.NewDisposeScope())
        {
            DecodeCase.Inputs inputs = decode.Create(device);
            Tensor slots = torch.tensor(new[] { 0L, 1, -1, 3 }).to(device);
            Tensor leaf = inputs.Q.requires_grad_(true);
            Tensor output = Functional.linear_decode_forward(
                leaf, inputs.K, inputs.V, decode.States(device, decode.B), inputs.Rates, slots);
            Penalise(output.sum(), leaf, leaf);
        }

        using (torch.NewDisposeScope())
        {
            DecodeCase.Inputs inputs = decode.Create(device);
            Tensor leaf = decode.States(device, decode.B).requires_grad_(true);
            (Tensor output, _) = Functional.linear_decode_step(inputs.Q, inputs.K, inputs.V, leaf, inputs.Rates);
            Penalise(output.sum(), leaf, leaf);
        }

        ExpectSuccess(device);

        static void Penalise(Tensor loss, Tensor differentiated, Tensor leaf)
        {
            // retain_graph because the loss is differentiated again: TorchSharp's default is false here as well.
            Tensor gradient = torch.autograd.grad(
                [loss], [differentiated], retain_graph: true, create_graph: true)[0];
            // libtorch runs later nodes first, but counts them per thread: those that CUDA's thread made come last
            // there, when the leaf may have its first-order gradient.
            ExpectFailure(loss + gradient.square().sum(), loss.device_type == DeviceType.CPU ? leaf : null);
        }
    }

    /// <summary>The same request by torch.autograd.grad, which ends the process.</summary>
    internal static void SecondDerivativesByGrad(Device device)
    {
        var attention = new AttentionCase { N = 70 };
        AttentionCase.Inputs leaves = attention.Create(device).Leaves();
        IList<Tensor> first = torch.autograd.grad(
            [attention.Call(leaves).Output.sum()], [leaves.Q, leaves.K], retain_graph: true, create_graph: true);
        Console.WriteLine("first derivatives");
        torch.autograd.grad([first[0].sum()], [leaves.K]);
        Console.WriteLine("second derivatives");
    }

    /// <summary>
    /// Training by both kinds of operators: steps in which the runtime and the allocators settle, then 10,000 from step
    /// 0 on. Prints what the process holds after every thousand, and the first and the last loss.
    /// </summary>
    internal static void LongTraining(Device device)
    {
        const int FirstStep = -4_999;
        const int LastStep = 10_000;
        var attention = new AttentionCase { B = 1, N = 64, D = 16, E = 16 };
        using var scope = torch.NewDisposeScope();
        AttentionCase.Inputs parameters = attention.Create(device).Leaves();
        Tensor target = Values.Normal(7, ScalarType.Float32, device, 1, 2, 64, 16);
        long peakTensors = 0;
        for (int step = FirstStep; step <= LastStep; step++)
        {
            using (torch.NewDisposeScope())
            {
                (Tensor output, Tensor states) = attention.Call(parameters);
                (Tensor decoded, Tensor state) = Functional.linear_decode_step(
                    parameters.Q.narrow(2, 0, 1),
                    parameters.K.narrow(2, 0, 1),
                    parameters.V.narrow(2, 0, 1),
                    states.select(2, -1),
                    parameters.Rates);
                Tensor fit = (output - target).square().mean();
                Tensor loss = fit + ((decoded.square().mean() + state.square().mean()) * 1e-3);
                loss.backward();

                // The graph of the gradients must go as well. Both results take part: TorchSharp's counts grow by one
                // for each undefined gradient, though it holds nothing.
                (Tensor again, Tensor statesAgain) = attention.Call(parameters);
                Tensor sum = again.sum() + statesAgain.sum();
                torch.autograd.grad([sum], [parameters.Q, parameters.Rates], create_graph: true);
                using (torch.no_grad())
                {
                    foreach (Tensor parameter in parameters.All)
                    {
                        parameter.sub_(parameter.grad! * 0.5).clamp_(min: parameter.dim() == 1 ? 0 : -10);
                        parameter.grad!.zero_();
                    }
                }

                if (step is FirstStep or LastStep)
                {
                    Console.WriteLine($"loss {fit.item<float>():g6}");
                }
            }

            // Looked at in every step, because the garbage collector would hide what was left over before.
            peakTensors = Math.Max(peakTensors, Tensor.TotalCount);
            if (step % 1000 == 0)
            {
                Console.WriteLine(ProcessMemory.Read(device, peakTensors).ToLine(step));
                peakTensors = 0;
            }
        }
    }

    private static void ExpectFailure(Tensor loss, Tensor? leaf)
    {
        Native.LastBackwardError = null;
        try
        {
            loss.backward();
            Console.WriteLine("nothing thrown");
        }
        catch (ExternalException error)
        {
            Console.WriteLine($"{error.Message}\ncause: {Native.LastBackwardError?.Message}");
        }

        if (leaf?.grad is not null)
        {
            Console.WriteLine("a gradient in spite of the error");
        }
    }

    private static void ExpectSuccess(Device device)
    {
        using var scope = torch.NewDisposeScope();
        AttentionCase.Inputs leaves = new AttentionCase().Create(device).Leaves();
        new AttentionCase().Call(leaves).Output.sum().backward();
        Console.WriteLine(leaves.Q.grad is null ? "no gradient" : "works again");
    }

    /// <summary>
    /// A backward pass to q, k and v of 64 MiB each. Prints what the process holds before it and after it.
    /// </summary>
    internal static void LargeLeaves(Device device)
    {
        ExpectSuccess(device); // loads what is loaded once
        using var scope = torch.NewDisposeScope();
        Tensor[] leaves = [.. Enumerable.Range(0, 3).Select(_ =>
            torch.randn([1, 2, 1 << 17, 64], device: device, requires_grad: true))];
        Tensor rates = Functional.build_slope_tensor(2).to(device);
        (Tensor output, _) = Functional.lightning_attention(
            leaves[0], leaves[1], leaves[2], rates, output_block_states: false);
        Tensor gradient = torch.ones_like(output);
        Console.WriteLine(ProcessMemory.Read(device, 0).ToLine(0));
        output.backward([gradient]);
        Native.Synchronize(device);
        Console.WriteLine(ProcessMemory.Read(device, 0).ToLine(1));
    }

    /// <summary>
    /// Training and decoding without any dispose scope while another thread collects garbage all the time. The operands
    /// of this library's calls have no other use. TorchSharp's own calls do not keep their operands alive, so those of
    /// every one of them outlive it.
    /// </summary>
    internal static void CollectDuringCalls(Device device)
    {
        const int Steps = 100;
        var attention = new AttentionCase { N = 1500, D = 64, E = 64 };
        var decode = new DecodeCase { D = 16, E = 16 };
        AttentionCase.Inputs leaves = attention.Create(device).Leaves();
        DecodeCase.Inputs token = decode.Create(device);
        token.Q.requires_grad_(true);
        Tensor state = decode.States(device, decode.B);
        Tensor slots = torch.tensor(new[] { 0L, 1, -1, 3 }).to(device);
        Tensor gradOutput = Values.Normal(5, ScalarType.Float32, device, 2, 2, 1500, 64);
        Tensor gradToken = Values.Normal(6, ScalarType.Float32, device, 4, 32);
        Tensor[] all = [.. leaves.All];

        using var stop = new CancellationTokenSource();
        var collector = new Thread(() =>
        {
            while (!stop.IsCancellationRequested)
            {
                GC.Collect();
                GC.WaitForPendingFinalizers();
            }
        });
        collector.Start();
        try
        {
            byte[][]? first = null;
            for (int step = 0; step < Steps; step++)
            {
                (Tensor output, Tensor states) = CallOnCopies();
                IList<Tensor> gradients = torch.autograd.grad(
                    [output], all, [gradOutput], create_graph: step % 2 == 1);
                Tensor decoded = Functional.linear_decode_forward(
                    Copy(token.Q), Copy(token.K), Copy(token.V), state, Copy(token.Rates), Copy(slots));
                IList<Tensor> tokenGradients = torch.autograd.grad([decoded], [token.Q], [gradToken]);
                Tensor inferred;
                using (torch.no_grad())
                {
                    // Nothing but the call itself keeps these operands.
                    inferred = CallOnCopies().Output;
                }

                byte[][] bits = [.. gradients.Append(inferred).Select(Values.Bits)];
                first ??= bits;
                if (first.Zip(bits).Any(static pair => !pair.First.AsSpan().SequenceEqual(pair.Second)))
                {
                    Console.WriteLine($"step {step} differs");
                }

                GC.KeepAlive(output);
                GC.KeepAlive(states);
                GC.KeepAlive(gradients);
                GC.KeepAlive(decoded);
                GC.KeepAlive(tokenGradients);
            }

            Console.WriteLine($"{Steps} steps");
        }
        finally
        {
            stop.Cancel();
            collector.Join();
        }

        GC.KeepAlive(leaves);
        GC.KeepAlive(all);
        GC.KeepAlive(token);
        GC.KeepAlive(state);
        GC.KeepAlive(slots);
        GC.KeepAlive(gradOutput);
        GC.KeepAlive(gradToken);

        (Tensor Output, Tensor States) CallOnCopies() => attention.Call(new AttentionCase.Inputs(
            Copy(leaves.Q), Copy(leaves.K), Copy(leaves.V), Copy(leaves.Rates), Copy(leaves.History!)));

        static Tensor Copy(Tensor tensor)
        {
            using var scope = torch.NewDisposeScope();
            Tensor copy = tensor.clone().MoveToOuterDisposeScope();
            GC.KeepAlive(tensor);
            return copy;
        }
    }
}
