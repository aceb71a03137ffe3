package matrix

import (
	"encoding/json"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// jsonAttempt is an attempt as JSON: everything by name, so that a line can be read without the rest.
type jsonAttempt struct {
	From        string `json:"from"`
	To          string `json:"to"`
	Family      string `json:"family"`
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Protocol    string `json:"protocol"`
	Port        uint16 `json:"port"`
	Demanded    bool   `json:"demanded"`
	Because     string `json:"because"`
	Connects    bool   `json:"connects"`
	Outcome     string `json:"outcome"`
	AsDemanded  bool   `json:"asDemanded"`
}

// MarshalJSON lists the attempts and counts the differences.
func (m *Matrix) MarshalJSON() ([]byte, error) {
	out := struct {
		Connections []jsonAttempt `json:"connections"`
		Differences int           `json:"differences"`
	}{Connections: []jsonAttempt{}, Differences: m.Differences()}
	for _, a := range m.Attempts {
		t := m.Targets[a.Target]
		out.Connections = append(out.Connections, jsonAttempt{
			From: m.Sources[a.Source].Name, To: t.Name, Family: familyName(a.Family),
			Source: a.Src.String(), Destination: a.Dst.String(), Protocol: t.Protocol.String(), Port: t.Port,
			Demanded: a.Want, Because: a.Why, Connects: a.Got, Outcome: a.Result.String(), AsDemanded: a.AsDemanded(),
		})
	}
	return json.Marshal(out)
}

func familyName(f iptables.Family) string {
	if f == iptables.IPv4 {
		return "IPv4"
	}
	return "IPv6"
}
