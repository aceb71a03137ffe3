package kubectl

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/internal/encode"
	"github.com/ringfence-io/ringfence/internal/query"
)

// testFile is a file of assertions. docs/connectivity-test.schema.json has its schema.
type testFile struct {
	Kind string `json:"kind"`
	// Namespace is that of names without one.
	Namespace  string      `json:"namespace,omitempty"`
	Assertions []assertion `json:"assertions"`
}

// assertion is a sentence, and what it is good for.
type assertion struct {
	Name string `json:"name,omitempty"`
	That string `json:"that"`
}

const testKind = "ConnectivityTest"

// testResult is what has become of one assertion.
type testResult struct {
	File    string   `json:"file"`
	Name    string   `json:"name,omitempty"`
	That    string   `json:"that"`
	Passed  bool     `json:"passed"`
	Differs []string `json:"differs,omitempty"`
	Error   string   `json:"error,omitempty"`
}

func newTestCommand(o *options) *cobra.Command {
	forms := append([]string{"junit"}, outputs...)
	return &cobra.Command{
		Use:   "test FILE...",
		Short: "Check assertions about who reaches whom",
		Long: `Check assertions about who reaches whom. A file of them is

  kind: ConnectivityTest
  assertions:
  - that: shop/frontend reaches shop/backend on tcp/8080
  - that: shop/frontend does not reach shop/database
  - that: nothing outside shop reaches shop/database
    name: only the shop knows its database
  - that: nothing but monitoring/prometheus reaches shop/metrics on tcp/9100
  - that: shop/database reaches nothing outside shop

Ends are as in 'why'. Without ports, "reaches" is about some port, and all other assertions are about every port.

The exit status is 0 if all hold, 1 if one does not, and 2 if one cannot be checked.`,
		Example: `  kubectl ringfence test -f config/samples connectivity.yaml -o junit > report.xml`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := o.ask(cmd, forms, everywhere)
			if err != nil {
				return err
			}
			var results []testResult
			for _, name := range args {
				some, err := checkFile(q.Cluster, name, q.namespace)
				if err != nil {
					return err
				}
				results = append(results, some...)
			}
			return reportTests(cmd.OutOrStdout(), o.output, results)
		},
	}
}

// checkFile checks the assertions of a file.
func checkFile(c *query.Cluster, name, namespace string) ([]testResult, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading assertions: %w", err)
	}
	var file testFile
	if err := yaml.UnmarshalStrict(text, &file); err != nil {
		return nil, fmt.Errorf("reading assertions: %s: %w", name, err)
	}
	if file.Kind != testKind || len(file.Assertions) == 0 {
		return nil, fmt.Errorf("reading assertions: %s: write kind: %s, and some assertions", name, testKind)
	}
	if file.Namespace != "" {
		namespace = file.Namespace
	}
	var results []testResult
	for _, one := range file.Assertions {
		r := testResult{File: name, Name: one.Name, That: one.That}
		parsed, err := query.ParseAssertion(one.That)
		if err == nil {
			r.Differs, err = c.Check(parsed, namespace)
		}
		if err != nil {
			r.Error = err.Error()
		}
		r.Passed = err == nil && len(r.Differs) == 0
		results = append(results, r)
	}
	return results, nil
}

// reportTests prints the results, and returns the error by which the program ends.
func reportTests(out io.Writer, output string, results []testResult) error {
	failed, broken := 0, 0
	for _, r := range results {
		switch {
		case r.Error != "":
			broken++
		case !r.Passed:
			failed++
		}
	}
	var err error
	switch output {
	case "text":
		for _, r := range results {
			fmt.Fprintln(out, r)
		}
		_, err = fmt.Fprintf(out, "%d of %d hold\n", len(results)-failed-broken, len(results))
	case "junit":
		err = printJUnit(out, results, failed, broken)
	default:
		_, err = encode.Value(out, output, results)
	}
	switch {
	case err != nil:
		return err
	case broken > 0:
		return errors.New("some assertions cannot be checked: the ends that they name are not there, or they are no sentences")
	case failed > 0:
		return errNo
	}
	return nil
}

// String is the result on one line, with what differs below.
func (r testResult) String() string {
	word := "holds  "
	lines := r.Differs
	switch {
	case r.Error != "":
		word, lines = "BROKEN ", []string{r.Error}
	case !r.Passed:
		word = "FAILS  "
	}
	text := word + r.That
	if r.Name != "" {
		text += " (" + r.Name + ")"
	}
	for _, line := range lines {
		text += "\n         " + line
	}
	return text
}

// junit is the form of test results that CI systems read.
type junit struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	File    string `xml:"classname,attr"`
	Name    string `xml:"name,attr"`
	Failure *text  `xml:"failure,omitempty"`
	Error   *text  `xml:"error,omitempty"`
}

type text struct {
	Message string `xml:"message,attr"`
	Body    string `xml:",chardata"`
}

func printJUnit(out io.Writer, results []testResult, failed, broken int) error {
	suite := junit{Name: "ringfence", Tests: len(results), Failures: failed, Errors: broken}
	for _, r := range results {
		one := junitCase{File: r.File, Name: r.That}
		switch {
		case r.Error != "":
			one.Error = &text{r.Error, ""}
		case !r.Passed:
			one.Failure = &text{r.Differs[0], strings.Join(r.Differs, "\n")}
		}
		suite.Cases = append(suite.Cases, one)
	}
	encoder := xml.NewEncoder(out)
	encoder.Indent("", "  ")
	if _, err := io.WriteString(out, xml.Header); err != nil {
		return err
	}
	if err := encoder.Encode(suite); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out)
	return err
}
