package kubectl

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ringfence-io/ringfence/internal/query"
	"github.com/ringfence-io/ringfence/internal/source"
)

// options are what all commands have in common.
type options struct {
	files      []string
	podCIDRs   []string
	output     string
	config     clientcmd.ConfigOverrides
	kubeconfig string

	given client.WithWatch // by a test, in place of the cluster's
}

func (o *options) addTo(f *pflag.FlagSet) {
	f.StringSliceVarP(&o.files, "filename", "f", nil,
		"answer about the objects of these files and directories (- for the standard input), not about a cluster")
	f.StringSliceVar(&o.podCIDRs, "pod-cidr", []string{source.DefaultPodCIDR.String()},
		"ranges of pods' addresses, one of each family: pods of files that have none get one from each. Blocks of policies may contain them")
	f.StringVarP(&o.output, "output", "o", "text", strings.Join(outputs, ", "))
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "the kubeconfig file")
	clientcmd.BindOverrideFlags(&o.config, f, clientcmd.RecommendedConfigOverrideFlags(""))
}

// loader reads the kubeconfig as kubectl does.
func (o *options) loader() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.kubeconfig
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &o.config)
}

// namespace is the one that names without a namespace are in.
func (o *options) namespace() (string, error) {
	if len(o.files) > 0 {
		if n := o.config.Context.Namespace; n != "" {
			return n, nil
		}
		return metav1.NamespaceDefault, nil
	}
	namespace, _, err := o.loader().Namespace()
	if err != nil {
		return "", fmt.Errorf("reading the kubeconfig: %w", err)
	}
	return namespace, nil
}

// gather reads the objects: those of files, or those of some of the cluster's namespaces; of all, if none is named.
func (o *options) gather(ctx context.Context, stdin io.Reader, namespaces ...string) (source.Gathered, error) {
	if len(o.files) > 0 {
		return o.fromFiles(o.files, stdin)
	}
	return o.cluster(ctx, namespaces...)
}

// fromFiles reads the objects of files.
func (o *options) fromFiles(files []string, stdin io.Reader) (source.Gathered, error) {
	var ranges []netip.Prefix
	for _, text := range o.podCIDRs {
		r, err := netip.ParsePrefix(text)
		if err != nil {
			return source.Gathered{}, fmt.Errorf("--pod-cidr %q is no range: write one such as %s", text, source.DefaultPodCIDR)
		}
		ranges = append(ranges, r)
	}
	return source.Files(files, stdin, ranges)
}

// cluster reads the objects of some of the cluster's namespaces; of all, if none is named.
func (o *options) cluster(ctx context.Context, namespaces ...string) (source.Gathered, error) {
	c, err := o.client()
	if err != nil {
		return source.Gathered{}, err
	}
	return source.Live(ctx, c, namespaces...)
}

// client is one of the cluster that the kubeconfig names.
func (o *options) client() (client.WithWatch, error) {
	if o.given != nil {
		return o.given, nil
	}
	config, err := o.loader().ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	config.QPS, config.Burst = 50, 100
	scheme, err := source.Scheme()
	if err != nil {
		return nil, err
	}
	c, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("connecting to the cluster: %w", err)
	}
	return c, nil
}

// readNamespace is the namespace that is asked about, empty for all.
func (o *options) readNamespace(all bool) (string, error) {
	if all {
		return metav1.NamespaceAll, nil
	}
	return o.namespace()
}

// question is a cluster that is asked, and what the answer depends on besides.
type question struct {
	*query.Cluster
	source.Gathered
	namespace string // of names without one
}

// ask reads what a question is about: the namespaces that it needs, where names without one are in a given one. What cannot be read is said on the standard
// error. A form of output that the command does not have is refused.
func (o *options) ask(cmd *cobra.Command, forms []string, namespacesOf func(namespace string) []string) (question, error) {
	if err := o.checkOutput(forms); err != nil {
		return question{}, err
	}
	namespace, err := o.namespace()
	if err != nil {
		return question{}, err
	}
	gathered, err := o.gather(cmd.Context(), cmd.InOrStdin(), namespacesOf(namespace)...)
	if err != nil {
		return question{}, err
	}
	printMissing(cmd, gathered.Missing)
	return question{query.New(gathered.Complete()), gathered, namespace}, nil
}

// everywhere is for questions about all namespaces.
func everywhere(string) []string { return nil }

// checkOutput refuses a form that a command does not have.
func (o *options) checkOutput(forms []string) error {
	if !slices.Contains(forms, o.output) {
		return fmt.Errorf("--output %q is not known here: write %s", o.output, strings.Join(forms, ", "))
	}
	return nil
}

// printMissing says on the standard error what an answer does not know.
func printMissing(cmd *cobra.Command, missing []string) {
	for _, m := range missing {
		fmt.Fprintln(cmd.ErrOrStderr(), "Not read:", m)
	}
}
