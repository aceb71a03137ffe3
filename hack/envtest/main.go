// Command envtest takes kube-apiserver, etcd and kubectl from the archives that envtest publishes. It asks what setup-envtest asks, with the
// library of setup-envtest: the index, and the archive that the index names, whose checksum has to be the one in the index.
//
//	envtest [-index URL] -cache DIR VERSION
//
// The release is VERSION, or the newest patch release of its minor if the index does not have VERSION. The directory with the programs is in
// DIR, and its path is printed. Where the programs cannot be had, nothing is printed but a line on standard error that says why: the caller
// builds from source then, so that this is no failure. An index that does not answer costs seconds.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"sigs.k8s.io/controller-runtime/tools/setup-envtest/remote"
	"sigs.k8s.io/controller-runtime/tools/setup-envtest/versions"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

func run(ctx context.Context, args []string, out, log io.Writer) int {
	flags := flag.NewFlagSet("envtest", flag.ContinueOnError)
	flags.SetOutput(log)
	index := flags.String("index", remote.DefaultIndexURL, "`URL` of the index of archives")
	cache := flags.String("cache", "", "`directory` in which the programs get a directory of their own")
	if flags.Parse(args) != nil {
		return 2
	}
	wanted, err := versions.FromExpr(strings.TrimPrefix(flags.Arg(0), "v"))
	if err != nil || wanted.AsConcrete() == nil || flags.NArg() != 1 || *cache == "" {
		fmt.Fprintln(log, "usage: envtest [-index URL] -cache DIR VERSION, with a VERSION such as v1.36.3")
		return 2
	}
	p := published{
		index:    &remote.HTTPClient{IndexURL: *index},
		platform: versions.Platform{OS: runtime.GOOS, Arch: runtime.GOARCH},
		limits:   limits{index: 5 * time.Second, silence: 15 * time.Second},
		log:      log,
	}
	dir, err := p.fetch(ctx, *wanted.AsConcrete(), *cache)
	if ctx.Err() != nil {
		return 130 // interrupted
	}
	if err != nil {
		fmt.Fprintf(log, "building kube-apiserver, etcd and kubectl from source, since envtest's published ones cannot be had: %v\n", err)
		return 0
	}
	fmt.Fprintln(out, dir)
	return 0
}
