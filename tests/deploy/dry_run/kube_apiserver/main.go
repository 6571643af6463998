// A kube-apiserver and the etcd that it keeps its objects in, as one process, for `make manifests-dry-run`.
//
//	kube-apiserver FOLDER [the flags of kube-apiserver, but --etcd-servers]
//
// FOLDER is etcd's, and is made. Both listen on the loopback address where their flags say nothing else; SIGTERM ends both.
package main

import (
	"fmt"
	"net/url"
	"os"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// etcdStartsWithin is how long a new etcd of one member may take on a machine that is busy.
const etcdStartsWithin = 2 * time.Minute

func main() {
	if len(os.Args) < 2 {
		fail("usage: %s FOLDER [flags of kube-apiserver]", os.Args[0])
	}
	etcd := startEtcd(os.Args[1])
	command := app.NewAPIServerCommand()
	command.SetArgs(append(os.Args[2:], "--etcd-servers=http://"+etcd.Clients[0].Addr().String()))
	err := command.Execute()
	etcd.Close()
	if err != nil {
		fail("kube-apiserver: %v", err)
	}
}

// startEtcd on ports that are free.
func startEtcd(folder string) *embed.Etcd {
	anyPort := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	config := embed.NewConfig()
	config.Dir = folder
	config.LogLevel = "error"
	config.UnsafeNoFsync = true // nothing here outlives the process
	config.ListenPeerUrls, config.AdvertisePeerUrls = anyPort, anyPort
	config.ListenClientUrls, config.AdvertiseClientUrls = anyPort, anyPort
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		fail("etcd: %v", err)
	}
	select {
	case <-etcd.Server.ReadyNotify():
	case <-time.After(etcdStartsWithin):
		fail("etcd was not ready within %s", etcdStartsWithin)
	}
	return etcd
}

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", values...)
	os.Exit(1)
}
