// The exporter as a container app, signed in with an identity of identity.bicep: docs/deploy-container-apps.md.

@description('Name of the app.')
param name string = 'azure-batch-exporter'

@description('Region of the app.')
param location string = resourceGroup().location

@description('Resource id of the Container Apps environment.')
param environmentId string

@description('Resource id of the identity; it must be allowed to pull the image, too (AcrPull).')
param identityId string

@description('Login server of the registry: example.azurecr.io.')
param registry string

@description('The image in that registry, with its tag or digest.')
param image string

@description('The configuration file: config=@config.yaml.')
param config string

resource app 'Microsoft.App/containerApps@2024-03-01' = {
  name: name
  location: location
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    environmentId: environmentId
    configuration: {
      activeRevisionsMode: 'Single'
      ingress: {
        // Within the environment's network only: for a Prometheus there.
        external: false
        targetPort: 10225
        transport: 'http'
        allowInsecure: false
      }
      registries: [
        {
          server: registry
          identity: identityId
        }
      ]
      // Not that it were secret: it is how a container app has files.
      secrets: [
        {
          name: 'config'
          value: config
        }
      ]
    }
    template: {
      containers: [
        {
          name: 'exporter'
          image: '${registry}/${image}'
          args: [
            'run'
            '--config.file=/etc/azure-batch-exporter/config.yaml'
            '--log.format=json'
          ]
          resources: {
            cpu: json('0.25')
            memory: '0.5Gi'
          }
          probes: [
            {
              type: 'Liveness'
              httpGet: {
                path: '/-/healthy'
                port: 10225
              }
            }
            {
              type: 'Readiness'
              httpGet: {
                path: '/-/ready'
                port: 10225
              }
            }
          ]
          volumeMounts: [
            {
              volumeName: 'config'
              mountPath: '/etc/azure-batch-exporter'
            }
          ]
        }
      ]
      // One and no more: two would poll everything twice.
      scale: {
        minReplicas: 1
        maxReplicas: 1
      }
      volumes: [
        {
          name: 'config'
          storageType: 'Secret'
          secrets: [
            {
              secretRef: 'config'
              path: 'config.yaml'
            }
          ]
        }
      ]
    }
  }
}

@description('What Prometheus scrapes, with scheme https.')
output host string = app.properties.configuration.ingress.fqdn
