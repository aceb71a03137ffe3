package rights

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/ringfence-io/ringfence/lab/process"
	"github.com/ringfence-io/ringfence/test/kit"
)

// TestMetricsAreForThoseWhoMayReadThem runs a controller with nothing but its own rights, and asks it as different people do.
func TestMetricsAreForThoseWhoMayReadThem(t *testing.T) {
	address := controllerProcess(t)
	reader, stranger := serviceAccount(t, "reader"), serviceAccount(t, "stranger")
	kit.Must(t, admin.Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "reader"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "ringfence-metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: system, Name: "reader"}},
	}))
	tests := []struct {
		name, scheme, token string
		want                int
	}{
		{"nobody", "https", "", http.StatusUnauthorized},
		{"a token of nobody's", "https", "forged", http.StatusUnauthorized},
		{"somebody who may not", "https", stranger, http.StatusForbidden},
		{"somebody who may", "https", reader, http.StatusOK},
		{"without encryption", "http", reader, noAnswer},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, body := ask(t, (&net.Dialer{}).DialContext, tt.scheme+"://"+address+"/metrics", tt.token, tt.want)
			if status != tt.want {
				t.Errorf("status %d, want %d: %s", status, tt.want, body)
			}
			if shown := strings.Contains(body, "ringfence_"); shown != (tt.want == http.StatusOK) {
				t.Errorf("metrics are shown: %t", shown)
			}
		})
	}
}

// noAnswer stands for one that is no answer to what was asked: the end of the connection, or HTTP's word for a client that forgot to encrypt.
const noAnswer = 0

// controllerProcess starts a controller as its Deployment does, and returns where its metrics are.
func controllerProcess(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "ringfence")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/ringfence-io/ringfence").CombinedOutput(); err != nil {
		t.Fatalf("building ringfence: %v\n%s", err, out)
	}
	token, err := tokenOf(t.Context(), controller, nil)
	kit.Must(t, err)
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: restConfig.Host, CertificateAuthorityData: restConfig.CAData}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "x"
	kubeconfig := filepath.Join(dir, "kubeconfig")
	kit.Must(t, clientcmd.WriteToFile(*config, kubeconfig))
	free, err := net.Listen("tcp", "127.0.0.1:0")
	kit.Must(t, err)
	address := free.Addr().String()
	kit.Must(t, free.Close())
	started, err := process.Start(exec.Command(program, "controller", "--kubeconfig", kubeconfig, "--metrics-bind-address", address,
		"--health-probe-bind-address", "0"), "the controller", filepath.Join(dir, "log"))
	kit.Must(t, err)
	t.Cleanup(func() { started.Stop(30 * time.Second) })
	return address
}

func serviceAccount(t *testing.T, name string) (token string) {
	t.Helper()
	kit.Must(t, admin.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: name}}))
	token, err := tokenOf(t.Context(), name, nil)
	kit.Must(t, err)
	return token
}

// dialer is net.Dialer's DialContext, or a host's.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// ask asks until the answer is as wanted, for a minute: the process and the roles come into force in their own time.
func ask(t *testing.T, dial dialer, url, token string, want int) (status int, body string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	for deadline := time.Now().Add(time.Minute); ; {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		kit.Must(t, err)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		status = noAnswer
		if answer, err := client.Do(r); err != nil {
			body = err.Error()
		} else {
			text, err := io.ReadAll(answer.Body)
			answer.Body.Close()
			if body = string(text); err == nil && answer.StatusCode != http.StatusBadRequest {
				status = answer.StatusCode
			}
		}
		if status == want || time.Now().After(deadline) {
			return status, body
		}
		select {
		case <-t.Context().Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}
