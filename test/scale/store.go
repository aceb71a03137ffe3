package scale

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/ringfence-io/ringfence/lab/host"
)

// store writes objects into etcd, in the form in which the API server stores them. One costs far less than a request to the API server does, and
// what is measured here begins when they are there. The API server hears of them by its watch of etcd, as it hears of the writes of its
// likes. Nobody validates them.
type store struct{ client *http.Client }

const (
	// etcdTransactions is etcd's own gateway from HTTP, inside the API server's host.
	etcdTransactions = "http://127.0.0.1:2379/v3/kv/txn"
	// putsAtOnce is how many objects are written in one transaction: etcd takes 128.
	putsAtOnce = 100
)

// newStore writes to the etcd of a host.
func newStore(h *host.Host) *store {
	return &store{&http.Client{Transport: &http.Transport{DialContext: h.DialContext}}}
}

// storable is an object of the API that has a metadata.
type storable interface {
	runtime.Object
	metav1.Object
}

// put stores n objects of a resource, which object makes: new ones, without a name that is there already. An object gets its UID from that.
func (s *store) put(ctx context.Context, resource string, n int, object func(i int) storable) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for first := 0; first < n && ctx.Err() == nil; first += putsAtOnce {
		group.Go(func() error {
			var puts []etcdPut
			for i := first; i < min(first+putsAtOnce, n); i++ {
				one, err := putOf(resource, object(i))
				if err != nil {
					return err
				}
				puts = append(puts, one)
			}
			return s.commit(ctx, puts)
		})
	}
	return group.Wait()
}

// etcdPut is one operation of a transaction, in the words of etcd's gateway.
type etcdPut struct {
	Put struct {
		Key   []byte `json:"key"`
		Value []byte `json:"value"`
	} `json:"request_put"`
}

// putOf is the write of one object.
func putOf(resource string, o storable) (put etcdPut, err error) {
	o.SetUID(uidOf(resource, o))
	o.SetCreationTimestamp(metav1.NewTime(time.Now()))
	kinds, _, err := scheme.Scheme.ObjectKinds(o)
	if err != nil {
		return put, fmt.Errorf("storing %s: %w", o.GetName(), err)
	}
	o.GetObjectKind().SetGroupVersionKind(kinds[0])
	var value bytes.Buffer
	if err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(o, &value); err != nil {
		return put, fmt.Errorf("storing %s: %w", o.GetName(), err)
	}
	put.Put.Key, put.Put.Value = []byte(path.Join("/registry", resource, o.GetNamespace(), o.GetName())), value.Bytes()
	return put, nil
}

// uidOf is the UID of a stored object, in the form of any other.
func uidOf(resource string, o metav1.Object) types.UID {
	sum := sha256.Sum256([]byte(path.Join(resource, o.GetNamespace(), o.GetName())))
	return types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16]))
}

// commit writes one transaction.
func (s *store) commit(ctx context.Context, puts []etcdPut) error {
	body, err := json.Marshal(map[string]any{"success": puts})
	if err != nil {
		return fmt.Errorf("storing objects: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, etcdTransactions, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("storing objects: %w", err)
	}
	response, err := s.client.Do(request)
	if err != nil {
		return fmt.Errorf("storing objects: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("etcd answers %s: %s", response.Status, text)
	}
	if err != nil {
		return fmt.Errorf("storing objects: %w", err)
	}
	return nil
}
