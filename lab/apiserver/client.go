package apiserver

import (
	"fmt"
	"net/netip"
	"os"

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
	config := clientcmdapi.NewConfig()
	config.Clusters["lab"] = &clientcmdapi.Cluster{Server: url, CertificateAuthorityData: s.ca.pem}
	config.AuthInfos[u.Name] = &clientcmdapi.AuthInfo{ClientCertificateData: credentials.cert, ClientKeyData: credentials.key}
	config.Contexts["lab"] = &clientcmdapi.Context{Cluster: "lab", AuthInfo: u.Name}
	config.CurrentContext = "lab"
	text, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("encoding the kubeconfig of %s: %w", u.Name, err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return fmt.Errorf("writing the kubeconfig of %s: %w", u.Name, err)
	}
	return nil
}
