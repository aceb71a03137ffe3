package report

import (
	"fmt"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
	"github.com/ringfence-io/ringfence/controllers/cached"
	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// AddressTroubles is what a report says of addresses, nil if there is nothing to say.
func AddressTroubles(c policy.Concerns) *v1alpha1.AddressTroubles {
	t := &v1alpha1.AddressTroubles{
		Contested: int32(c.Contested.Here), ContestedElsewhere: int32(c.Contested.Elsewhere), Impossible: int32(c.Impossible.Here + c.Impossible.Elsewhere),
	}
	if t.Contested+t.ContestedElsewhere+t.Impossible == 0 {
		return nil
	}
	for _, one := range c.Contested.First {
		t.Named = append(t.Named, v1alpha1.AddressTrouble{Address: one.Addr.String(), Message: cached.Plain(contestText(one), maxTroubleMessage)})
	}
	impossible := make([]v1alpha1.AddressTrouble, len(c.Impossible.First))
	for i, o := range c.Impossible.First {
		text := ownerText(o) + " is shown with an address that none can have: it is left out of everything"
		impossible[i].Message = cached.Plain(text, maxTroubleMessage)
	}
	// Each kind has room for half, and what the other leaves.
	const half = v1alpha1.MaxAddressTroubles / 2
	room := v1alpha1.MaxAddressTroubles - min(len(impossible), half)
	t.Named = t.Named[:min(len(t.Named), room)]
	t.Named = append(t.Named, impossible[:min(len(impossible), v1alpha1.MaxAddressTroubles-len(t.Named))]...)
	return t
}

// maxTroubleMessage is the longest message about an address, in bytes: two pods with the longest names fit in.
const maxTroubleMessage = 1024

func contestText(c policy.Contest) string {
	held := "it is taken for nobody's"
	switch {
	case c.Here:
		held = fmt.Sprintf("it is taken for that of %s, which is on this node", ownerText(c.Holder))
		if c.Holder == (policy.Owner{}) {
			held = "two pods of this node are announced with it, so that it is taken for nobody's"
		}
	case c.Holder != policy.Owner{}:
		held = "it is taken for that of " + ownerText(c.Holder)
	}
	more := ""
	if c.Pods > 2 {
		more = fmt.Sprintf(", and %d more", c.Pods-2)
	}
	return fmt.Sprintf("%d pods are shown with %s: %s; another is %s%s", c.Pods, c.Addr, held, ownerText(c.Other), more)
}

func ownerText(o policy.Owner) string {
	if o.Ref.Kind == "Node" {
		return o.Ref.String()
	}
	return fmt.Sprintf("%s on node %s", o.Ref, o.Node)
}
