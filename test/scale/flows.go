package scale

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringfence-io/ringfence/config"
)

// Flow is what the API server says of the requests of one flow schema, since it started (API Priority and Fairness).
type Flow struct {
	Schema, Level      string
	Requests, Rejected int64         // carried out; turned away because too many waited
	Waited             time.Duration // of those that were carried out, together
}

// flowControl is what config/flow-control installs, as a package below test sees it.
const flowControl = "../../config/flow-control/flow_control.yaml"

// ControlFlows installs what config/flow-control does.
func (c *Cluster) ControlFlows(ctx context.Context) error {
	text, err := os.ReadFile(flowControl)
	if err != nil {
		return fmt.Errorf("reading how our requests are shared out: %w", err)
	}
	objects, err := config.Decode(text)
	if err != nil {
		return err
	}
	return create(ctx, c.client, objects)
}

const (
	dispatched = "apiserver_flowcontrol_dispatched_requests_total"
	rejected   = "apiserver_flowcontrol_rejected_requests_total"
	waited     = "apiserver_flowcontrol_request_wait_duration_seconds_sum"
)

// sampleLine is a line of a metric with labels, in the text format of Prometheus. No label of these metrics has a brace or a quote in it.
var sampleLine = regexp.MustCompile(`^(\w+)\{([^}]*)\} (\S+)$`)

// Flows are those of all flow schemas with requests, by name.
func (c *Cluster) Flows(ctx context.Context) ([]Flow, error) {
	text, err := c.kube.Discovery().RESTClient().Get().AbsPath("/metrics").Do(ctx).Raw()
	if err != nil {
		return nil, fmt.Errorf("reading the API server's metrics: %w", err)
	}
	flows := map[string]*Flow{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := sampleLine.FindStringSubmatch(lines.Text())
		if fields == nil || !slices.Contains([]string{dispatched, rejected, waited}, fields[1]) {
			continue
		}
		value, err := strconv.ParseFloat(fields[3], 64)
		if err != nil {
			return nil, fmt.Errorf("reading the API server's metrics: %q: %w", lines.Text(), err)
		}
		labels := labelsOf(fields[2])
		f := flows[labels["flow_schema"]]
		if f == nil {
			f = &Flow{Schema: labels["flow_schema"], Level: labels["priority_level"]}
			flows[f.Schema] = f
		}
		switch {
		case fields[1] == dispatched:
			f.Requests += int64(value)
		case fields[1] == rejected:
			f.Rejected += int64(value)
		case labels["execute"] == "true":
			f.Waited += time.Duration(value * float64(time.Second))
		}
	}
	var all []Flow
	for _, name := range slices.Sorted(maps.Keys(flows)) {
		all = append(all, *flows[name])
	}
	return all, lines.Err()
}

func labelsOf(text string) map[string]string {
	labels := map[string]string{}
	for pair := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(pair, "=")
		labels[name] = strings.Trim(value, `"`)
	}
	return labels
}
