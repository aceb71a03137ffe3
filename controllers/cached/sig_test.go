package cached

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	signetv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	signetv1beta1 "sigs.k8s.io/network-policy-api/apis/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/ringfence-io/ringfence/api/v1alpha1"
)

func TestNothingOfTheSIGsPolicyIsLost(t *testing.T) {
	var theirs signetv1beta1.ClusterNetworkPolicy
	f := filler{t: t}
	f.fill(reflect.ValueOf(&theirs).Elem(), "")
	ours := FromSIG(&theirs)

	// Both as the API has them: the field names are the same, so a field that is in one only shows.
	if diff := cmp.Diff(without(asJSON(t, theirs), "metadata", "status", "apiVersion", "kind"),
		without(asJSON(t, ours), "metadata", "status", "apiVersion", "kind")); diff != "" {
		t.Errorf("what the SIG's policy says (-) is not what ours says (+):\n%s", diff)
	}
	wantMeta := metav1.ObjectMeta{
		Name: theirs.Name, UID: theirs.UID, ResourceVersion: theirs.ResourceVersion,
		Generation: theirs.Generation, CreationTimestamp: theirs.CreationTimestamp, Namespace: theirs.Namespace,
	}
	if diff := cmp.Diff(wantMeta, ours.ObjectMeta); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	wantType := metav1.TypeMeta{APIVersion: "policy.networking.k8s.io/v1beta1", Kind: "ClusterNetworkPolicy"}
	if diff := cmp.Diff(wantType, ours.TypeMeta); diff != "" {
		t.Errorf("type (-want +got):\n%s", diff)
	}
	if ours.Spec.Mode != "" {
		t.Errorf("mode is %q: the SIG's policies have none", ours.Spec.Mode)
	}
}

// Objects of each version are read into the type of the newest: none may have a field that another one lacks.
func TestTheSIGsVersionsHaveTheSameFields(t *testing.T) {
	var newer signetv1beta1.ClusterNetworkPolicy
	f := filler{t: t}
	f.fill(reflect.ValueOf(&newer).Elem(), "")
	var older signetv1alpha2.ClusterNetworkPolicy
	f = filler{t: t}
	f.fill(reflect.ValueOf(&older).Elem(), "")
	if diff := cmp.Diff(asJSON(t, older), asJSON(t, newer)); diff != "" {
		t.Errorf("the fields of v1alpha2 (-) are not those of v1beta1 (+):\n%s", diff)
	}
}

func TestWhatIsEmptyInTheSIGsPolicyStaysEmptyInOurs(t *testing.T) {
	everything := &v1alpha1.LabelSelector{}
	tests := []struct {
		name string
		spec string
		want v1alpha1.ClusterNetworkPolicySpec
	}{
		{"nothing at all", `{}`, v1alpha1.ClusterNetworkPolicySpec{}},
		{"a selector of everything is not the lack of one", `subject: {namespaces: {}}`,
			v1alpha1.ClusterNetworkPolicySpec{Subject: v1alpha1.Subject{Namespaces: everything}}},
		{"pods without selectors", `subject: {pods: {}}`,
			v1alpha1.ClusterNetworkPolicySpec{Subject: v1alpha1.Subject{Pods: &v1alpha1.NamespacedPod{}}}},
		{"a source of a kind from the future", `ingress: [{from: [{galaxies: {}}]}]`,
			v1alpha1.ClusterNetworkPolicySpec{Ingress: []v1alpha1.IngressRule{{From: []v1alpha1.Peer{{}}}}}},
		{"a destination of a kind from the future", `egress: [{to: [{galaxies: {}}, {nodes: {}}]}]`,
			v1alpha1.ClusterNetworkPolicySpec{Egress: []v1alpha1.EgressRule{{To: []v1alpha1.Peer{{}, {Nodes: everything}}}}}},
		{"a protocol from the future", `egress: [{to: [], protocols: [{quic: {}}]}]`,
			v1alpha1.ClusterNetworkPolicySpec{Egress: []v1alpha1.EgressRule{{To: []v1alpha1.Peer{}, Protocols: []v1alpha1.Protocol{{}}}}}},
		{"protocols without a port, and a port from the future", `egress: [{protocols: [{tcp: {}}, {udp: {destinationPort: {parity: odd}}}]}]`,
			v1alpha1.ClusterNetworkPolicySpec{Egress: []v1alpha1.EgressRule{{Protocols: []v1alpha1.Protocol{
				{TCP: &v1alpha1.PortMatch{}}, {UDP: &v1alpha1.PortMatch{DestinationPort: &v1alpha1.Port{}}}}}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var theirs signetv1beta1.ClusterNetworkPolicy
			if err := yaml.Unmarshal([]byte(tt.spec), &theirs.Spec); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, FromSIG(&theirs).Spec); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// filler sets fields to values of which no two are the same.
type filler struct {
	t    *testing.T
	last int
}

// fill sets v and all that is in it. A kind of value that it does not know ends the test: whoever adds the first field of that kind is to
// see that nothing tests it.
func (f *filler) fill(v reflect.Value, path string) {
	f.t.Helper()
	f.last++
	if _, ok := v.Interface().(metav1.Time); ok {
		v.Set(reflect.ValueOf(metav1.NewTime(time.Unix(int64(f.last), 0).UTC())))
		return
	}
	if _, ok := v.Interface().(metav1.FieldsV1); ok {
		v.Set(reflect.ValueOf(metav1.FieldsV1{}))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("text-%d", f.last))
	case reflect.Int32, reflect.Int64:
		v.SetInt(int64(f.last))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem(), path)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			f.fill(v.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		f.fill(key, path)
		f.fill(value, path)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			f.fill(v.Field(i), path+"."+v.Type().Field(i).Name)
		}
	default:
		f.t.Fatalf("%s is a %s, which this test cannot fill", path, v.Type())
	}
}

// asJSON is an object as the API shows it.
func asJSON(t *testing.T, o any) map[string]any {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	return fields
}

func without(fields map[string]any, names ...string) map[string]any {
	for _, name := range names {
		delete(fields, name)
	}
	return fields
}
