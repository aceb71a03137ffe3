package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// index plays the server of envtest's index and of its archives. It counts the requests that it gets.
type index struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string
	silent   string // part of the path of what it does not answer
	archives map[string][]byte
	sums     map[string]string // of what has another checksum than its own
}

// serve starts a server. All of it ends with the test, what it does not answer too.
func serve(t *testing.T) *index {
	x := &index{archives: map[string][]byte{}, sums: map[string]string{}}
	x.Server = httptest.NewServer(x)
	t.Cleanup(func() {
		x.CloseClientConnections()
		x.Close()
	})
	return x
}

// ServeHTTP answers a request.
func (x *index) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	x.mu.Lock()
	x.requests = append(x.requests, q.URL.Path)
	x.mu.Unlock()
	if x.silent != "" && strings.Contains(q.URL.Path, x.silent) {
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-q.Context().Done()
		return
	}
	if archive, ok := x.archives[strings.TrimPrefix(q.URL.Path, "/")]; ok {
		w.Write(archive)
		return
	}
	if q.URL.Path != "/index.yaml" {
		http.NotFound(w, q)
		return
	}
	fmt.Fprintln(w, "releases:")
	for name, archive := range x.archives {
		release := strings.SplitN(strings.TrimPrefix(name, "envtest-"), "-", 2)[0]
		sum, ok := x.sums[name]
		if !ok {
			hash := sha512.Sum512(archive)
			sum = hex.EncodeToString(hash[:])
		}
		fmt.Fprintf(w, "  %s:\n    %s:\n      hash: %q\n      selfLink: %s/%s\n", release, name, sum, x.URL, name)
	}
}

// asked is what has been asked for, one a line.
func (x *index) asked() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return strings.Join(x.requests, "\n")
}

func (x *index) url() string { return x.URL + "/index.yaml" }

// publish adds an archive of a release for this machine, with programs of those names.
func (x *index) publish(release string, names ...string) (archive string) {
	archive = fmt.Sprintf("envtest-%s-%s-%s.tar.gz", release, runtime.GOOS, runtime.GOARCH)
	x.archives[archive] = packed(release, names...)
	return archive
}

// packed is an archive of programs that say which release they are of, as envtest packs them.
func packed(release string, names ...string) []byte {
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	files := tar.NewWriter(zipped)
	for _, name := range names {
		text := "published " + release + "\n"
		header := tar.Header{Name: "controller-tools/envtest/" + name, Mode: 0o755, Size: int64(len(text)), Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0)}
		if err := files.WriteHeader(&header); err != nil {
			panic(err) // a buffer takes all
		}
		files.Write([]byte(text))
	}
	files.Close()
	zipped.Close()
	return out.Bytes()
}
