package report

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/controllers/internal/testapi"
)

var errTrouble = errors.New("no room")

// last is what the last report says of Healthy, without when.
func (d *desk) last() string {
	text := testapi.ConditionLine(d.wrote[len(d.wrote)-1].report.Status.Conditions, v1alpha1.HealthyCondition)
	before, _, _ := strings.Cut(text, " at ")
	_, after, _ := strings.Cut(text, ": ")
	return before + ": " + after
}

const well = "True Healthy: all that the enforcer does besides the rules works"

func TestTroubleIsReportedAndSoIsItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := atWork(t, time.Minute)
		d.change(1)
		passes(10 * time.Second)
		if got := d.last(); got != well {
			t.Errorf("at first: %s", got)
		}
		for range 10 { // as a cutter tries it
			d.health.Note(v1alpha1.CutFailingReason, errTrouble)
			passes(time.Second)
		}
		if got := d.last(); got != "False CutFailing: no room" || len(d.wrote) != 2 {
			t.Errorf("after ten seconds of failures: %d reports, the last says %s", len(d.wrote), got)
		}
		d.health.Note(v1alpha1.CutFailingReason, nil)
		passes(3 * time.Minute)
		if got := d.last(); got != well {
			t.Errorf("minutes after it went well: %s", got)
		}
		for _, w := range d.wrote {
			if e := testapi.ConditionLine(w.report.Status.Conditions, v1alpha1.EnforcingCondition); !strings.HasPrefix(e, "True") {
				t.Errorf("of the rules it is said: %s", e)
			}
		}
	})
}

// What fails now and then is in trouble as long as it does: the condition turns once, and costs one write.
func TestTroubleDoesNotFlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := atWork(t, time.Minute)
		d.change(1)
		passes(10 * time.Second)
		for i := range 600 { // ten minutes: five seconds of failures, five of successes
			var err error
			if i/5%2 == 0 {
				err = fmt.Errorf("attempt %d: %w", i, errTrouble)
			}
			d.health.Note(v1alpha1.CutFailingReason, err)
			passes(time.Second)
		}
		turns := 0
		for i := 1; i < len(d.wrote); i++ {
			a, b := d.wrote[i-1].report.Status.Conditions, d.wrote[i].report.Status.Conditions
			if meta.FindStatusCondition(a, v1alpha1.HealthyCondition).Status != meta.FindStatusCondition(b, v1alpha1.HealthyCondition).Status {
				turns++
			}
		}
		if turns != 1 || len(d.wrote) > 2+11 {
			t.Errorf("the condition turned %d times in %d reports, want once, and no more reports than heartbeats", turns, len(d.wrote))
		}
	})
}

func TestAFailureThatPassesIsNotSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := atWork(t, time.Minute)
		d.change(1)
		passes(10 * time.Second)
		for range 100 {
			d.health.Note(v1alpha1.CutFailingReason, errTrouble)
			d.health.Note(v1alpha1.CutFailingReason, nil)
			passes(time.Second)
		}
		for _, w := range d.wrote {
			if got := testapi.ConditionLine(w.report.Status.Conditions, v1alpha1.HealthyCondition); !strings.HasPrefix(got, "True") {
				t.Errorf("a report says %s", got)
			}
		}
	})
}

func TestSeveralTroublesAreOneCondition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		health := NewHealth()
		for range 3 {
			for _, reason := range []string{v1alpha1.ArrivalsUnsavedReason, v1alpha1.NotInstalledReason, v1alpha1.CutFailingReason} {
				health.Note(reason, errors.New(reason+strings.Repeat(".", 200)))
			}
			time.Sleep(2 * time.Second)
		}
		c := health.condition(time.Now())
		if c.Reason != v1alpha1.CutFailingReason || len(c.Message) > cached.MaxMessage || !strings.Contains(c.Message, "..; NotInstalled") {
			t.Errorf("%s: %s", c.Reason, c.Message)
		}
		since := c.LastTransitionTime
		health.Note(v1alpha1.CutFailingReason, nil)
		time.Sleep(troubleHold)
		if c = health.condition(time.Now()); c.Reason != v1alpha1.NotInstalledReason || c.LastTransitionTime != since {
			t.Errorf("with one less: %s since %s, want since %s", c.Reason, c.LastTransitionTime, since)
		}
	})
	var none *Health
	none.Note(v1alpha1.CutFailingReason, errTrouble) // nobody wants to know
}
