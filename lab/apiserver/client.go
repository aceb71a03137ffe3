package apiserver

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Config is for clients in this process, without any rate limit of their own.
func (s *Server) Config(u User) (*rest.Config, error) {
	credentials, err := s.ca.client(u)
	if err != nil {
		return nil, err
	}
	return &rest.Config{
		Host: "https://" + s.proxy.addr(),
		TLSClientConfig: rest.TLSClientConfig{
			CAData: s.ca.pem, CertData: credentials.cert, KeyData: credentials.key,
		},
		QPS: -1,
		// The lab lists and deletes whatever there is, deprecated kinds too; nobody has to be told.
		WarningHandler: rest.NoWarnings{},
	}, nil
}

// LocalURL is where programs in the caller's network reach the server.
func (s *Server) LocalURL() string { return "https://" + s.proxy.addr() }

// URL is where other hosts reach the server, at one of its addresses.
func (s *Server) URL(addr netip.Addr) string {
	return "https://" + netip.AddrPortFrom(addr, Port).String()
}

// WriteKubeconfig writes a kubeconfig for u to reach the server at url.
func (s *Server) WriteKubeconfig(path, url string, u User) error {
	credentials, err := s.ca.client(u)
	if err != nil {
		return err
	}
	return s.writeKubeconfig(path, url, u.Name, &clientcmdapi.AuthInfo{ClientCertificateData: credentials.cert, ClientKeyData: credentials.key})
}

// tokenLife is longer than any lab stays up. A server that does not allow as much gives the longest that it does.
const tokenLife = 24 * time.Hour

// WriteTokenKubeconfig writes a kubeconfig for a service account, which must exist, to reach the server at url. Its token is bound to the
// node, if there is one: it says its name, and ends when the Node does.
func (s *Server) WriteTokenKubeconfig(ctx context.Context, path, url string, account *corev1.ServiceAccount, node *corev1.Node) error {
	client, err := kubernetes.NewForConfig(s.admin)
	if err != nil {
		return fmt.Errorf("making a client that asks for tokens: %w", err)
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(tokenLife.Seconds()))}}
	if node != nil {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}
	}
	accounts := client.CoreV1().ServiceAccounts(account.Namespace)
	answer, err := accounts.CreateToken(ctx, account.Name, request, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("asking for a token of service account %s/%s: %w", account.Namespace, account.Name, err)
	}
	return s.writeKubeconfig(path, url, account.Name, &clientcmdapi.AuthInfo{Token: answer.Status.Token})
}

// writeKubeconfig writes one for whoever has these credentials.
func (s *Server) writeKubeconfig(path, url, name string, credentials *clientcmdapi.AuthInfo) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["lab"] = &clientcmdapi.Cluster{Server: url, CertificateAuthorityData: s.ca.pem}
	config.AuthInfos[name] = credentials
	config.Contexts["lab"] = &clientcmdapi.Context{Cluster: "lab", AuthInfo: name}
	config.CurrentContext = "lab"
	text, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("encoding the kubeconfig of %s: %w", name, err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return fmt.Errorf("writing the kubeconfig of %s: %w", name, err)
	}
	return nil
}
